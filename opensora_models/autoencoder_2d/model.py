"""The image autoencoder of Flux, frame by frame on clips."""

import torch
from torch import Tensor, nn

from opensora_models.autoencoder_2d.blocks import NORM_GROUPS
from opensora_models.autoencoder_2d.coders import Decoder, Encoder
from opensora_models.autoencoder_2d.weights import LIKELY_CAUSES
from opensora_models.layers.pictures import by_frame
from opensora_models.layers.posterior import DiagonalGaussian
from schemas.autoencoder.autoencoder_2d import AutoEncoder2DConfig
from schemas.errors import OsoraError


class AutoEncoder2D(nn.Module):
    """Frames to latents of their own and back, a side to an eighth. State-dict keys are those of the published checkpoint."""

    causal = False
    likely_causes = LIKELY_CAUSES

    def __init__(self, config: AutoEncoder2DConfig) -> None:
        super().__init__()
        odd = [config.ch * factor for factor in (1, *config.ch_mult) if config.ch * factor % NORM_GROUPS]
        if odd:
            raise OsoraError(
                f"ae.ch = {config.ch}, ae.ch_mult = {list(config.ch_mult)}: a stage of {odd[0]} channels is no multiple of "
                f"the {NORM_GROUPS} groups of its norms. Choose a multiple of {NORM_GROUPS} for ae.ch."
            )
        self.config = config
        self.latent_channels = config.z_channels
        self.strides = (1, config.spatial_compression_ratio, config.spatial_compression_ratio)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, DiagonalGaussian]:
        """Return the reconstruction from a sample of the posterior, and the posterior: what training needs."""
        posterior = self.posterior(x_BCTHW)
        return self.decode(self._scaled(posterior.sample(generator))), posterior

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latents' (t, h, w) for a clip of that many frames and pixels; sides are rounded down."""
        _, rows, columns = self.strides
        return frames, height // rows, width // columns

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
        """Return the distribution of the raw latents, before shift and scale."""
        return DiagonalGaussian(by_frame(self.encoder, x_BCTHW))

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents; values may leave [-1, 1] a little."""
        return by_frame(self.decoder, z_BCTHW / self.config.scale_factor + self.config.shift_factor)

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.config.scale_factor * (raw - self.config.shift_factor)
