"""What encoding or decoding costs, whatever the autoencoder."""

from dataclasses import dataclass

from schemas.autoencoder import AutoencoderConfig, DCAEConfig, HunyuanVAEConfig
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
    frames, height, width = extent
    side, rounds_up = config.spatial_compression_ratio, isinstance(config, HunyuanVAEConfig | DCAEConfig)
    more = side - 1 if rounds_up else 0  # the others leave out what does not fill a latent pixel
    return latent_frames(config, frames), (height + more) // side, (width + more) // side
