"""The two stages together: frames to latents of pictures, and those along time."""

from typing import NamedTuple, Protocol, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_models.layers.posterior import DiagonalGaussian
from opensora_models.open_sora_vae.temporal import VAETemporal, frames_wanted
from opensora_models.open_sora_vae.weights import PIPELINE_CAUSES
from schemas.autoencoder import OpenSoraVAEConfig
from schemas.autoencoder.frames import latent_frames, part_frames, parts_of
from schemas.autoencoder.open_sora_vae import ByChannel
from schemas.errors import OsoraError

PICTURES_PREFIX = "spatial_vae.module."


class Pictures(Protocol):
    """The autoencoder of pictures: scaled latents of frames, and back."""

    def encode(self, x_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents: the mean, or with a generator a sample."""
        ...

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return pixels."""
        ...

    def own_key(self, key: str) -> str:
        """Return our name of a file's key."""
        ...


class Stages(NamedTuple):
    """A clip on its way through both stages, which is what training compares; latents are raw, before shift and scale."""

    pixels: Tensor
    pictures: Tensor
    """The latents of pictures (B, C, T, h, w), and `rebuilt` what the stage along time made of them."""
    rebuilt: Tensor
    latents: Tensor
    posterior: DiagonalGaussian


class SpatialStage(nn.Module):
    """Gives the autoencoder of pictures the name that it has in the published checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class OpenSoraVAE(nn.Module):
    """T frames to ceil(17 / 4) = 5 latent frames for every 17, and ceil(rest / 4); a side to an eighth.

    State-dict keys are those of the published OpenSora-VAE-v1.2. `pictures` is the autoencoder of pictures.
    """

    causal = False
    likely_causes = PIPELINE_CAUSES
    from_config = ("shift", "scale")
    """Entries of the state that the configuration decides, whatever a file has."""

    def __init__(self, config: OpenSoraVAEConfig, pictures: nn.Module) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.latent_channels = config.latent_channels
        side = config.spatial_compression_ratio
        self.strides = (config.time_compression_ratio, side, side)
        self.spatial_vae = SpatialStage(pictures)
        self.temporal_vae = VAETemporal(config.vae_temporal)
        self.register_buffer("shift", _by_channel(config.shift))
        self.register_buffer("scale", _by_channel(config.scale))
        if config.freeze_vae_2d:
            self.spatial_vae.requires_grad_(False)

    def forward(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, DiagonalGaussian]:
        """Return the reconstruction from a sample of both posteriors, and the one along time: what training needs."""
        stages = self.through_stages(x_BCTHW, generator)
        return stages.pixels, stages.posterior

    def through_stages(self, x_BCTHW: Tensor, generator: torch.Generator, *, pixels_learn: bool = True) -> Stages:
        """Return all of a clip's way, with samples of both posteriors; the last step has no gradients unless `pixels_learn`."""
        pictures_BCTHW = self.pictures.encode(x_BCTHW, generator)
        posterior = self.posterior_of(pictures_BCTHW)
        latents_BCTHW = posterior.sample(generator)
        rebuilt_BCTHW = self._rebuilt(latents_BCTHW, x_BCTHW.shape[2])
        with torch.set_grad_enabled(torch.is_grad_enabled() and pixels_learn):
            pixels_BCTHW = self.pictures.decode(rebuilt_BCTHW)
        return Stages(pixels_BCTHW, pictures_BCTHW, rebuilt_BCTHW, latents_BCTHW, posterior)

    @property
    def pictures(self) -> Pictures:
        """The autoencoder of pictures."""
        return cast("Pictures", self.spatial_vae.module)

    def own_key(self, key: str) -> str:
        """Return our name of a file's key."""
        _, wrapped, of_pictures = key.partition(PICTURES_PREFIX)
        return wrapped + self.pictures.own_key(of_pictures) if wrapped else key

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latents' (t, h, w) for a clip of that many frames and pixels; sides are rounded down."""
        _, rows, columns = self.strides
        return latent_frames(self.config, frames), height // rows, width // columns

    def encode(self, x_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents of pixels in [-1, 1]: the posterior's mean, or with a generator a sample drawn from it.

        Pictures are encoded to their mean, so that what is drawn is a function of `moments`; upstream draws there too.
        """
        return self.latents(self.moments(x_BCTHW), generator)

    def moments(self, x_BCTHW: Tensor) -> Tensor:
        """Return all that `latents` needs of a clip, which is what a cache keeps: the posterior's means and log variances."""
        return self.posterior(x_BCTHW).moments

    def latents(self, moments_BMTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents of `moments`, as `encode` does; needs no weights, so shift and scale are the configuration's."""
        posterior = DiagonalGaussian(moments_BMTHW)
        raw = posterior.mean if generator is None else posterior.sample(generator)
        return (raw - _by_channel(self.config.shift, raw)) / _by_channel(self.config.scale, raw)

    def posterior(self, x_BCTHW: Tensor) -> DiagonalGaussian:
        """Return the distribution of the raw latents, before shift and scale, given the mean of the pictures' latents."""
        return self.posterior_of(self.pictures.encode(x_BCTHW))

    def posterior_of(self, pictures_BCTHW: Tensor) -> DiagonalGaussian:
        """Return the distribution of the raw latents, given the latents of pictures; each part is encoded by itself."""
        lengths = parts_of(pictures_BCTHW.shape[2], part_frames(self.config))
        parts = [self.temporal_vae.moments(part) for part in pictures_BCTHW.split(lengths, 2)]
        return DiagonalGaussian(torch.cat(parts, 2))

    def decode(self, z_BCTHW: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the `num_frames` frames that were encoded; None: as many as so many latents can stand for.

        A part of 5 latent frames stands for 17, or 4 times as many as its latents. Values may leave [-1, 1] a little.
        Raises OsoraError where so many frames have another number of latent frames.
        """
        frames = frames_wanted(self.config, z_BCTHW, num_frames)
        raw_BCTHW = z_BCTHW * _by_channel(self.config.scale, z_BCTHW) + _by_channel(self.config.shift, z_BCTHW)
        return self.pictures.decode(self._rebuilt(raw_BCTHW, frames))

    def _rebuilt(self, raw_BCTHW: Tensor, frames: int) -> Tensor:
        lengths = parts_of(frames, part_frames(self.config))
        parts = raw_BCTHW.split([latent_frames(self.config.vae_temporal, length) for length in lengths], 2)
        return torch.cat([self.temporal_vae.decode(*part) for part in zip(parts, lengths, strict=True)], 2)


def _by_channel(values: ByChannel, like: Tensor | None = None) -> Tensor:
    """Return a number as it is, and one for each channel in the shape (1, C, 1, 1, 1): the shapes of the published files."""
    tensor = torch.tensor(values) if like is None else torch.tensor(values, dtype=like.dtype, device=like.device)
    return rearrange(tensor, "c -> 1 c 1 1 1") if tensor.dim() else tensor


def _check(config: OpenSoraVAEConfig) -> None:
    spatial, temporal = config.vae_2d.latent_channels, config.vae_temporal.in_out_channels
    if spatial != temporal:
        raise OsoraError(
            f"ae.vae_2d.latent_channels = {spatial}, but ae.vae_temporal.in_out_channels = {temporal}: the stage along "
            "time takes the latents of pictures. Make them equal."
        )
    for name, values in (("shift", config.shift), ("scale", config.scale)):
        if isinstance(values, tuple) and len(values) != config.latent_channels:
            raise OsoraError(
                f"ae.{name} has {len(values)} values, but there are {config.latent_channels} latent channels. "
                "Give one for each, or a single number."
            )
