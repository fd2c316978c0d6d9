"""The causal video autoencoder of HunyuanVideo."""

import torch
from torch import Tensor, nn

from opensora_models.hunyuan_vae.coders import Decoder, Encoder
from opensora_models.hunyuan_vae.posterior import DiagonalGaussian
from opensora_models.hunyuan_vae.tiling import HEIGHT, TIME, WIDTH, Coder, Tiling, tile_space, tile_time
from opensora_models.hunyuan_vae.weights import LIKELY_CAUSES
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
        space = Tiling.plan(self.config.sample_size, self._latent_tile, self.config.tile_overlap_factor)
        time = Tiling.plan(self.config.sample_tsize, self._latent_tile_frames, self.config.tile_overlap_factor)
        return DiagonalGaussian(self._tiled(x_BCTHW, space, time, lambda x: self.quant_conv(self.encoder(x))))

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents; values may leave [-1, 1] a little."""
        raw = z_BCTHW / self.config.scale_factor + self.config.shift_factor
        space = Tiling.plan(self._latent_tile, self.config.sample_size, self.config.tile_overlap_factor)
        time = Tiling.plan(self._latent_tile_frames, self.config.sample_tsize, self.config.tile_overlap_factor)
        return self._tiled(raw, space, time, lambda z: self.decoder(self.post_quant_conv(z)))

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.config.scale_factor * (raw - self.config.shift_factor)

    @property
    def _latent_tile(self) -> int:
        return self.config.sample_size // self.config.spatial_compression_ratio

    @property
    def _latent_tile_frames(self) -> int:
        return self.config.sample_tsize // self.config.time_compression_ratio

    def _tiled(self, x_BCTHW: Tensor, space: Tiling, time: Tiling, code: Coder) -> Tensor:
        """Apply `code` whole or, where a tiling is on and the input is larger than its tile, in tiles."""

        def in_space(x: Tensor) -> Tensor:
            large = max(x.shape[HEIGHT], x.shape[WIDTH]) > space.tile
            return tile_space(x, space, code) if self.config.use_spatial_tiling and large else code(x)

        if self.config.use_temporal_tiling and x_BCTHW.shape[TIME] > time.tile:
            return tile_time(x_BCTHW, time, in_space)
        return in_space(x_BCTHW)


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
