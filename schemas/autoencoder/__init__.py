"""Autoencoders: the tagged union is the registry of families."""

from typing import Annotated

from pydantic import Discriminator

from schemas.autoencoder.autoencoder_2d import AutoEncoder2DConfig
from schemas.autoencoder.dc_ae import DCAEConfig
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig

AutoencoderConfig = Annotated[HunyuanVAEConfig | DCAEConfig | AutoEncoder2DConfig, Discriminator("type")]
"""Every member has `latent_channels`, `time_compression_ratio`, `spatial_compression_ratio` and `causal`."""

__all__ = ["AutoEncoder2DConfig", "AutoencoderConfig", "DCAEConfig", "HunyuanVAEConfig"]
