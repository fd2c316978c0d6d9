"""Frame counts that an autoencoder can take."""

from schemas.autoencoder import AutoencoderConfig, PaddedConfig


def takes_any_length(ae: AutoencoderConfig) -> bool:
    """Whether clips of every length come back as long as they were."""
    return ae.time_compression_ratio == 1 or isinstance(ae, PaddedConfig)


def frames_advice(subject: str, frames: int, ae: AutoencoderConfig) -> tuple[str, str] | None:
    """Return message and advice for a count that the autoencoder cannot take, with the nearest counts; else None.

    A causal autoencoder takes ratio x k + 1 frames, one that fills clips up any, the others ratio x k, or one.
    """
    ratio, first = ae.time_compression_ratio, 1 if ae.causal else 0
    if takes_any_length(ae) or (frames - first) % ratio == 0 or frames == 1:
        return None
    below = (frames - first) // ratio * ratio + first
    options = " or ".join(str(count) for count in (below, below + ratio) if count > 0)
    if ae.causal:
        return f"{subject}: the causal autoencoder needs {ratio}k+1 frames.", f"Use {options}."
    return f"{subject}: the autoencoder {ae.type} needs {ratio}k frames, or one.", f"Use {options}."
