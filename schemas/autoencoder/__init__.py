"""Autoencoders: the tagged union is the registry of families."""

from typing import Annotated

from pydantic import Discriminator

from schemas.autoencoder.autoencoder_2d import AutoEncoder2DConfig
from schemas.autoencoder.autoencoder_kl import AutoencoderKLConfig, AutoencoderKLTemporalDecoderConfig
from schemas.autoencoder.dc_ae import DCAEConfig
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from schemas.autoencoder.open_sora_vae import OpenSoraVAEConfig, VAETemporalConfig

TiledConfig = HunyuanVAEConfig | DCAEConfig
"""Families that work in tiles."""
PaddedConfig = VAETemporalConfig | OpenSoraVAEConfig
"""Families that fill clips up in front, and so take any number of frames."""

AutoencoderConfig = Annotated[
    HunyuanVAEConfig
    | DCAEConfig
    | AutoEncoder2DConfig
    | AutoencoderKLConfig
    | AutoencoderKLTemporalDecoderConfig
    | VAETemporalConfig
    | OpenSoraVAEConfig,
    Discriminator("type"),
]
"""Every member has `latent_channels`, `time_compression_ratio`, `spatial_compression_ratio` and `causal`."""

__all__ = [
    "AutoEncoder2DConfig",
    "AutoencoderConfig",
    "AutoencoderKLConfig",
    "AutoencoderKLTemporalDecoderConfig",
    "DCAEConfig",
    "HunyuanVAEConfig",
    "OpenSoraVAEConfig",
    "PaddedConfig",
    "TiledConfig",
    "VAETemporalConfig",
]
