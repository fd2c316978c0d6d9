"""Memory and work of the autoencoders that take frames in portions, or in parts along time, each of which is traced once."""

from math import prod
from typing import Literal

from opensora_cli.planning.coded import Coding, Extent
from opensora_cli.planning.traced import pixel_channels, scaled, trace
from schemas.autoencoder import (
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    OpenSoraVAEConfig,
    VAETemporalConfig,
)
from schemas.autoencoder.frames import latent_frames, part_frames, parts_of

Direction = Literal["encode", "decode"]
SIDE = 8
"""Rows and columns of the latents that are traced for all sizes."""
FramesConfig = AutoencoderKLConfig | AutoencoderKLTemporalDecoderConfig


def staged_coding(
    config: FramesConfig | VAETemporalConfig | OpenSoraVAEConfig,
    matrix: int,
    batch: int,
    extent: Extent,
    direction: Direction,
) -> Coding:
    """Return the cost of a batch of clips of `extent` (pixels either way), `matrix` bytes a number."""
    match config:
        case AutoencoderKLConfig() | AutoencoderKLTemporalDecoderConfig():
            return _by_frame(config, matrix, batch, extent, direction)
        case VAETemporalConfig():
            return scaled(trace(config, matrix, extent, direction), batch)
        case OpenSoraVAEConfig():
            return _both(config, matrix, batch, extent, direction)


def _by_frame(config: FramesConfig, matrix: int, batch: int, extent: Extent, direction: Direction) -> Coding:
    """Frames cost the same each; those of a portion are there together, while the results of the others wait."""
    frames, height, width = extent
    if direction == "decode" and isinstance(config, AutoencoderKLTemporalDecoderConfig):
        # Convolutions over frames and norms over clips: memory and work grow with the frames.
        return scaled(trace(config, matrix, (1, height, width), direction), batch * frames)
    portion = min(config.micro_batch_size, batch * frames)
    together = trace(config, matrix, (portion, height, width), direction)
    waiting = 0
    if batch * frames > portion:
        channels = 2 * config.latent_channels if direction == "encode" else config.out_channels
        side = config.spatial_compression_ratio if direction == "encode" else 1
        waiting = batch * frames * matrix * channels * (height // side) * (width // side)
    whole = scaled(together, batch * frames, portion)
    return Coding(together.peak + waiting, whole.saved, whole.flops)


def _both(config: OpenSoraVAEConfig, matrix: int, batch: int, extent: Extent, direction: Direction) -> Coding:
    """The stages come one after the other; what one saves for a backward pass stays while the other works."""
    side = config.spatial_compression_ratio
    size = extent[1] // side, extent[2] // side
    pictures = _by_frame(config.vae_2d, matrix, batch, extent, direction)
    if direction == "encode" and config.freeze_vae_2d:
        pictures = Coding(pictures.peak, 0, pictures.flops)
    # Nothing but convolutions and norms: all pixels cost the same, and one small trace stands for all sizes.
    parts = [
        scaled(trace(config.vae_temporal, matrix, (frames, SIDE, SIDE), direction), batch * prod(size), SIDE**2)
        for frames in parts_of(extent[0], part_frames(config))
    ]
    latents = pixel_channels(config.vae_temporal) * extent[0] + config.latent_channels * latent_frames(
        config, extent[0]
    )
    waiting = batch * matrix * latents * prod(size)
    return Coding(
        max(pictures.peak, *(part.peak for part in parts)) + waiting,
        pictures.saved + sum(part.saved for part in parts),
        pictures.flops + sum(part.flops for part in parts),
    )
