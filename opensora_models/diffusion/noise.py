"""The noise a sample starts from."""

import math

import torch
from torch import Tensor


def latent_side(pixels: int, spatial_stride: int, patch_size: int) -> int:
    """Return the latent pixels of a side, rounded up to whole patches."""
    return patch_size * math.ceil(pixels / (spatial_stride * patch_size))


def latent_noise(
    generator: torch.Generator,
    *,
    channels: int,
    latent_frames: int,
    height: int,
    width: int,
    spatial_stride: int,
    patch_size: int,
    num_samples: int = 1,
) -> Tensor:
    """Draw unit noise (num_samples, C, T, H, W), float32 on the generator's device, for a clip of height x width pixels.

    The same generator state gives the same noise whatever the model's device or precision.
    """
    sides = (latent_side(side, spatial_stride, patch_size) for side in (height, width))
    return torch.randn(num_samples, channels, latent_frames, *sides, generator=generator, device=generator.device)
