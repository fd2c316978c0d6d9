"""What encoding or decoding costs, whatever the autoencoder."""

from dataclasses import dataclass

from schemas.autoencoder import AutoencoderConfig
from schemas.autoencoder.frames import latent_frames

Extent = tuple[int, int, int]
"""Frames, height and width."""


@dataclass(frozen=True)
class Coding:
    """Encoding or decoding a batch: bytes alive at most (input excluded), bytes saved for a backward pass, FLOPs."""

    peak: int
    saved: int
    flops: int


def latent_size(config: AutoencoderConfig, extent: Extent) -> Extent:
    """Return the latents' frames, rows and columns for a clip of so many frames and pixels."""
    side = config.spatial_compression_ratio
    return latent_frames(config, extent[0]), (extent[1] - 1) // side + 1, (extent[2] - 1) // side + 1
