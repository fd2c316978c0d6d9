"""Frame counts that a causal autoencoder can take."""


def causal_advice(subject: str, frames: int, ratio: int) -> tuple[str, str]:
    """Return message and advice for a count that is not ratio x k + 1: the nearest counts below and above."""
    below = (frames - 1) // ratio * ratio + 1
    return f"{subject}: the causal autoencoder needs {ratio}k+1 frames.", f"Use {below} or {below + ratio}."
