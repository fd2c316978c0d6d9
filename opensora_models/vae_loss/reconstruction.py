"""How far reconstructions are from clips, and latents from what a denoiser likes.

Everything is a sum over the pixels of a frame, averaged over frames; weights are chosen for that.
"""

import math
from typing import Literal

import torch
from torch import Tensor

OUTLIER_DEVIATIONS = 3.0


def reconstruction_loss(x_BCTHW: Tensor, target_BCTHW: Tensor, kind: Literal["l1", "l2"]) -> Tensor:
    """Return the distance summed over the pixels and channels of a frame, averaged over frames; float32, a scalar."""
    difference = x_BCTHW.float() - target_BCTHW.float()
    distance = difference.abs() if kind == "l1" else difference.square()
    batch, _, frames = x_BCTHW.shape[:3]
    return distance.sum() / (batch * frames)


def negative_log_likelihood(distance: Tensor, values_per_frame: int, logvar: float) -> Tensor:
    """Return a distance, summed over a frame, as a likelihood with log variance `logvar` for each of the frame's values.

    Source: Open-Sora 2.0, models/vae/losses.py; upstream calls the variance learnable and never learns it.
    """
    return distance / math.exp(logvar) + logvar * values_per_frame


def outlier_penalty(z_BCTHW: Tensor) -> Tensor:
    """Return by how much latent pixels lie outside three standard deviations of their frame, on average; a scalar.

    Frames count each for itself; distances and deviations are norms over channels (Movie Gen, arXiv 2410.13720, eq. 1).
    """
    z_BCTHW = z_BCTHW.float()
    mean = z_BCTHW.mean(dim=(3, 4), keepdim=True)
    deviation_BT = (z_BCTHW - mean).square().mean(dim=(3, 4)).sum(dim=1).sqrt()
    distance_BTHW = torch.linalg.vector_norm(z_BCTHW - mean, dim=1)
    return (distance_BTHW - OUTLIER_DEVIATIONS * deviation_BT[:, :, None, None]).clamp(min=0).mean()
