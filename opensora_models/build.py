"""From configs to modules. The tagged unions in `schemas` are the registry; mypy rejects a match that lacks a member."""

from typing import TYPE_CHECKING, assert_never

import torch

from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.dc_ae.model import DCAE
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.mmdit.model import MMDiT
from schemas.autoencoder import AutoEncoder2DConfig, AutoencoderConfig, DCAEConfig, HunyuanVAEConfig
from schemas.denoiser import DenoiserConfig, MMDiTConfig
from schemas.text import TextConfig

if TYPE_CHECKING:
    from opensora_models.text.encoders import TextEncoders

Autoencoder = HunyuanVAE | DCAE | AutoEncoder2D
"""What every one of them has stands in docs/architecture.md, "Autoencoders"."""


def build_denoiser(config: DenoiserConfig) -> MMDiT:
    """Return the denoiser with random weights, on the current default device."""
    match config:
        case MMDiTConfig():
            return MMDiT(config)
        case _:
            assert_never(config)


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Return the autoencoder with random weights, on the current default device."""
    match config:
        case HunyuanVAEConfig():
            return HunyuanVAE(config)
        case DCAEConfig():
            return DCAE(config)
        case AutoEncoder2DConfig():
            return AutoEncoder2D(config)
        case _:
            assert_never(config)


def build_text_encoders(config: TextConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> "TextEncoders":
    """Return both text encoders with their weights, frozen. Raises OsoraError where one is not on this machine."""
    # transformers takes seconds to import, and who counts parameters or trains an autoencoder needs none of it.
    from opensora_models.text.encoders import ClipEncoder, T5Encoder, TextEncoders

    t5 = T5Encoder(
        config.t5.from_pretrained,
        config.t5.max_length,
        dtype,
        cleaning=config.t5.cleaning,
        masked=config.t5.masked,
    )
    clip = ClipEncoder(config.clip.from_pretrained, config.clip.max_length, dtype, cleaning=config.clip.cleaning)
    return TextEncoders(t5.to(device), clip.to(device))
