"""The image autoencoder of Stable Diffusion, frame by frame on clips, and the one of Stable Video Diffusion."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from opensora_models.autoencoder_kl.coders import Decoder, Encoder
from opensora_models.autoencoder_kl.temporal_decoder import TemporalDecoder
from opensora_models.autoencoder_kl.weights import LIKELY_CAUSES, own_key
from opensora_models.layers.pictures import in_portions
from opensora_models.layers.posterior import DiagonalGaussian
from schemas.autoencoder import AutoencoderKLConfig, AutoencoderKLTemporalDecoderConfig
from schemas.errors import OsoraError


class FrameEncoder(nn.Module, ABC):
    """What both autoencoders have: every frame is encoded by itself, a side to an eighth."""

    causal = False
    likely_causes = LIKELY_CAUSES
    own_key = staticmethod(own_key)

    def __init__(self, config: AutoencoderKLConfig | AutoencoderKLTemporalDecoderConfig) -> None:
        super().__init__()
        _check(config)
        self.latent_channels = config.latent_channels
        self.strides = (1, config.spatial_compression_ratio, config.spatial_compression_ratio)
        self._scale, self._shift = config.scale_factor, config.shift_factor
        self._portion = config.micro_batch_size
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)

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
        return DiagonalGaussian(in_portions(self._encode_frames, x_BCTHW, self._portion))

    @abstractmethod
    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents; values may leave [-1, 1] a little."""

    def _encode_frames(self, x_NCHW: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(channels_last(x_NCHW)))

    def _scaled(self, raw: Tensor) -> Tensor:
        return self._scale * (raw - self._shift)

    def _raw(self, z: Tensor) -> Tensor:
        return z / self._scale + self._shift


class AutoencoderKL(FrameEncoder):
    """Frames to latents of their own and back. State-dict keys are those of diffusers' class of the same name."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__(config)
        self.config = config
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents; values may leave [-1, 1] a little."""
        return in_portions(self._decode_frames, self._raw(z_BCTHW), self._portion)

    def _decode_frames(self, z_NCHW: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(channels_last(z_NCHW)))


class AutoencoderKLTemporalDecoder(FrameEncoder):
    """Frames to latents of their own, and clips back as a whole. State-dict keys are those of diffusers' class."""

    def __init__(self, config: AutoencoderKLTemporalDecoderConfig) -> None:
        super().__init__(config)
        self.config = config
        self.decoder = TemporalDecoder(config)

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents; values may leave [-1, 1] a little."""
        return self.decoder(self._raw(z_BCTHW))


def channels_last(x_NCHW: Tensor) -> Tensor:
    """Return the same with channels together in memory: convolutions keep that, and on a CPU take two thirds of the time."""
    return x_NCHW.contiguous(memory_format=torch.channels_last)


def _check(config: AutoencoderKLConfig | AutoencoderKLTemporalDecoderConfig) -> None:
    odd = [width for width in config.block_out_channels if width % config.norm_num_groups]
    if odd:
        raise OsoraError(
            f"ae.block_out_channels = {list(config.block_out_channels)}: {odd[0]} is no multiple of the "
            f"{config.norm_num_groups} groups of the norms. Choose multiples of {config.norm_num_groups}."
        )
