"""The causal video autoencoder of HunyuanVideo."""

import torch
from torch import Tensor, nn

from opensora_models.hunyuan_vae.coders import Decoder, Encoder
from opensora_models.hunyuan_vae.streaming import decode_parts, encode_parts
from opensora_models.hunyuan_vae.weights import LIKELY_CAUSES
from opensora_models.layers.posterior import DiagonalGaussian
from opensora_models.layers.tiling import Direction, TileChoice, TileSizes, Tiling, tile_plans, tiled
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from schemas.errors import OsoraError


class HunyuanVAE(nn.Module):
    """4k+1 frames to k+1 latent frames and back, a side to an eighth; the first frame is a latent frame of its own.

    State-dict keys are those of the published checkpoint. Any size works: an axis of n becomes (n - 1) // stride + 1.
    """

    causal = True
    likely_causes = LIKELY_CAUSES

    def __init__(self, config: HunyuanVAEConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.tile_choice: TileChoice | None = None
        self.latent_channels = config.latent_channels
        space = config.spatial_compression_ratio
        self.strides = (config.time_compression_ratio, space, space)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, 1)

    def forward(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, DiagonalGaussian]:
        """Return the reconstruction from a sample of the posterior, and the posterior: what training needs."""
        posterior = self.posterior(x_BCTHW)
        return self.decode(self._scaled(posterior.sample(generator))), posterior

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latents' (t, h, w) for a clip of that many frames and pixels."""
        time, rows, columns = self.strides
        return (frames - 1) // time + 1, (height - 1) // rows + 1, (width - 1) // columns + 1

    def encode(self, x_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents of pixels in [-1, 1]: the posterior's mean, or with a generator a sample drawn from it."""
        return self.latents(self.moments(x_BCTHW), generator)

    def moments(self, x_BCTHW: Tensor) -> Tensor:
        """Return all that `latents` needs of a clip, which is what a cache keeps: the posterior's means and log variances."""
        return self.posterior(x_BCTHW).moments

    def latents(self, moments_BMTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents of `moments`, as `encode` does; needs no weights."""
        posterior = DiagonalGaussian(moments_BMTHW)
        return self._scaled(posterior.mean if generator is None else posterior.sample(generator))

    def posterior(self, x_BCTHW: Tensor) -> DiagonalGaussian:
        """Return the distribution of the raw latents, before shift and scale. Moments of tiles are mixed, not samples."""
        space, time = self._tilings("encode", x_BCTHW)
        return DiagonalGaussian(tiled(x_BCTHW, space, time, self._encode_tile, past=1))

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents; values may leave [-1, 1] a little."""
        raw = z_BCTHW / self.config.scale_factor + self.config.shift_factor
        space, time = self._tilings("decode", z_BCTHW)
        return tiled(raw, space, time, self._decode_tile, past=1)

    def _encode_tile(self, x_BCTHW: Tensor) -> Tensor:
        """Return moments: in one go where gradients are wanted, else in parts, which takes less memory (see streaming.py)."""
        if torch.is_grad_enabled():
            return self.quant_conv(self.encoder(x_BCTHW))
        return self.quant_conv(encode_parts(self.encoder, x_BCTHW, self._frames_at_a_time(1)))

    def _decode_tile(self, z_BCTHW: Tensor) -> Tensor:
        z_BCTHW = self.post_quant_conv(z_BCTHW)
        if torch.is_grad_enabled():
            return self.decoder(z_BCTHW)
        (time, rows, columns), (batch, _, frames, height, width) = self.strides, z_BCTHW.shape
        pixels = z_BCTHW.new_empty(
            batch, self.config.out_channels, time * (frames - 1) + 1, height * rows, width * columns
        )
        start = 0
        for part in decode_parts(self.decoder, z_BCTHW, self._frames_at_a_time(time)):
            pixels[:, :, start : start + part.shape[2]] = part
            start += part.shape[2]
        return pixels

    def _frames_at_a_time(self, stride: int) -> int | None:
        frames = self.config.stream_frames
        return None if frames == "whole" else max(1, frames // stride)

    def _tilings(self, direction: Direction, x_BCTHW: Tensor) -> tuple[Tiling | None, Tiling | None]:
        config = self.config
        sizes = self._tiles_as_set() if self.tile_choice is None else self.tile_choice(direction, x_BCTHW)
        return tile_plans(
            direction,
            sizes,
            ratios=(config.spatial_compression_ratio, config.time_compression_ratio),
            overlap=config.tile_overlap_factor,
            batch=config.tile_batch,
        )

    def _tiles_as_set(self) -> TileSizes:
        config = self.config
        return TileSizes(
            config.sample_size if config.use_spatial_tiling else None,
            config.sample_tsize if config.use_temporal_tiling else None,
        )

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.config.scale_factor * (raw - self.config.shift_factor)


def _check(config: HunyuanVAEConfig) -> None:
    odd = [width for width in config.block_out_channels if width % config.norm_num_groups]
    if odd:
        raise OsoraError(
            f"ae.block_out_channels = {list(config.block_out_channels)}: {odd[0]} is no multiple of "
            f"ae.norm_num_groups = {config.norm_num_groups}. Change one of the two."
        )
    for key, size, ratio in (
        ("sample_size", config.sample_size, config.spatial_compression_ratio),
        ("sample_tsize", config.sample_tsize, config.time_compression_ratio),
    ):
        if int(size // ratio * (1 - config.tile_overlap_factor)) < 1:
            raise OsoraError(
                f"ae.{key} = {size}: with ae.tile_overlap_factor = {config.tile_overlap_factor} a tile of "
                f"{size // ratio} latents has no room to advance. Use a larger {key} or a smaller overlap."
            )
