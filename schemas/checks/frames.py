"""Frame counts that an autoencoder can take."""

from schemas.autoencoder import AutoencoderConfig


def frames_advice(subject: str, frames: int, ae: AutoencoderConfig) -> tuple[str, str] | None:
    """Return message and advice for a count that the autoencoder cannot take, with the nearest counts; else None.

    A causal autoencoder takes ratio x k + 1 frames, any other ratio x k, or one.
    """
    ratio, first = ae.time_compression_ratio, 1 if ae.causal else 0
    if (frames - first) % ratio == 0 or frames == 1:
        return None
    below = (frames - first) // ratio * ratio + first
    options = " or ".join(str(count) for count in (below, below + ratio) if count > 0)
    if ae.causal:
        return f"{subject}: the causal autoencoder needs {ratio}k+1 frames.", f"Use {options}."
    return f"{subject}: the autoencoder {ae.type} needs {ratio}k frames, or one.", f"Use {options}."
