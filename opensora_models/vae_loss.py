"""Losses of autoencoders."""

from typing import Literal

from torch import Tensor


def reconstruction_loss(x_BCTHW: Tensor, target_BCTHW: Tensor, kind: Literal["l1", "l2"]) -> Tensor:
    """Return the distance summed over the pixels and channels of a frame, averaged over frames; float32, a scalar."""
    difference = x_BCTHW.float() - target_BCTHW.float()
    distance = difference.abs() if kind == "l1" else difference.square()
    batch, _, frames = x_BCTHW.shape[:3]
    return distance.sum() / (batch * frames)


def psnr(x_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of the batch in dB, for pixels in [-1, 1] (peak to peak 2)."""
    error = (x_BCTHW.float() - target_BCTHW.float()).square().mean().clamp(min=1e-12)
    return 10 * (4 / error).log10()
