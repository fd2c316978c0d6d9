"""The stage along time, which is also an autoencoder of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.layers.posterior import DiagonalGaussian
from opensora_models.open_sora_vae.blocks import CausalConv3d
from opensora_models.open_sora_vae.coders import TemporalDecoder, TemporalEncoder
from opensora_models.open_sora_vae.weights import TEMPORAL_CAUSES, causes_below
from schemas.autoencoder import PaddedConfig, VAETemporalConfig
from schemas.autoencoder.frames import latent_frames, most_frames
from schemas.errors import OsoraError


class VAETemporal(nn.Module):
    """T frames to ceil(T / 4) latent frames and back; sides stay. State-dict keys are those of VAE_Temporal.

    Zero frames in front fill a clip up to a multiple of the ratio, and are left out again after decoding.
    """

    causal = False
    likely_causes = causes_below("ae.", "", TEMPORAL_CAUSES)

    def __init__(self, config: VAETemporalConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.latent_channels = config.embed_dim
        self.strides = (config.time_compression_ratio, 1, 1)
        self.encoder = TemporalEncoder(config)
        self.quant_conv = CausalConv3d(2 * config.latent_embed_dim, 2 * config.embed_dim, 1)
        self.post_quant_conv = CausalConv3d(config.embed_dim, config.latent_embed_dim, 1)
        self.decoder = TemporalDecoder(config)

    def forward(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, DiagonalGaussian]:
        """Return the reconstruction from a sample of the posterior, and the posterior: what training needs."""
        posterior = self.posterior(x_BCTHW)
        return self.decode(posterior.sample(generator), x_BCTHW.shape[2]), posterior

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latents' (t, h, w) for a clip of that size."""
        return latent_frames(self.config, frames), height, width

    def encode(self, x_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return latents, which have no scale: the posterior's mean, or with a generator a sample drawn from it."""
        return self.latents(self.moments(x_BCTHW), generator)

    def moments(self, x_BCTHW: Tensor) -> Tensor:
        """Return all that `latents` needs of a clip, which is what a cache keeps: the posterior's means and log variances."""
        return self.posterior(x_BCTHW).moments

    def latents(self, moments_BMTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return latents of `moments`, as `encode` does; needs no weights."""
        posterior = DiagonalGaussian(moments_BMTHW)
        return posterior.mean if generator is None else posterior.sample(generator)

    def posterior(self, x_BCTHW: Tensor) -> DiagonalGaussian:
        """Return the distribution of the latents."""
        missing = -x_BCTHW.shape[2] % self.strides[0]
        filled = F.pad(x_BCTHW, (0, 0, 0, 0, missing, 0)) if missing else x_BCTHW
        return DiagonalGaussian(self.quant_conv(self.encoder(filled)))

    def decode(self, z_BCTHW: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the `num_frames` frames that were encoded; None: as many as so many latents can stand for.

        Raises OsoraError where so many frames have another number of latent frames.
        """
        frames = frames_wanted(self.config, z_BCTHW, num_frames)
        x_BCTHW = self.decoder(self.post_quant_conv(z_BCTHW))
        return x_BCTHW[:, :, x_BCTHW.shape[2] - frames :]


def frames_wanted(config: PaddedConfig, z_BCTHW: Tensor, num_frames: int | None) -> int:
    """Return the frames to decode latents to. Raises OsoraError where these are the latents of another number."""
    if num_frames is None:
        return most_frames(config, z_BCTHW.shape[2])
    needed = latent_frames(config, num_frames)
    if needed != z_BCTHW.shape[2]:
        raise OsoraError(
            f"num_frames = {num_frames} are {needed} latent frames, but there are {z_BCTHW.shape[2]}. "
            f"Give the number of frames that were encoded."
        )
    return num_frames


def _check(config: VAETemporalConfig) -> None:
    widths = [config.filters * factor for factor in (1, *config.channel_multipliers)]
    if odd := [width for width in widths if width % config.num_groups]:
        raise OsoraError(
            f"ae.filters = {config.filters}, ae.channel_multipliers = {list(config.channel_multipliers)}: a block of {odd[0]} "
            f"channels is no multiple of ae.num_groups = {config.num_groups}. Change one of them."
        )
    if len(config.temporal_downsample) != len(config.channel_multipliers) - 1:
        raise OsoraError(
            f"ae.temporal_downsample has {len(config.temporal_downsample)} entries, but between "
            f"{len(config.channel_multipliers)} blocks are {len(config.channel_multipliers) - 1} steps. Give one entry a step."
        )
