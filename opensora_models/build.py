"""From configs to modules. The tagged unions in `schemas` are the registry; mypy rejects a match that lacks a member."""

from typing import TYPE_CHECKING, assert_never

import torch

from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.autoencoder_kl.model import AutoencoderKL, AutoencoderKLTemporalDecoder
from opensora_models.dc_ae.model import DCAE
from opensora_models.dit.model import DiT
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.latte.model import Latte
from opensora_models.mmdit.model import MMDiT
from opensora_models.open_sora_vae.model import OpenSoraVAE
from opensora_models.open_sora_vae.temporal import VAETemporal
from opensora_models.pixart.model import PixArt
from opensora_models.stdit.model import STDiT
from opensora_models.stdit2.model import STDiT2
from opensora_models.stdit3.model import STDiT3
from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    DCAEConfig,
    HunyuanVAEConfig,
    OpenSoraVAEConfig,
    VAETemporalConfig,
)
from schemas.denoiser import (
    DenoiserConfig,
    DiTConfig,
    LatteConfig,
    MMDiTConfig,
    PixArtConfig,
    STDiT2Config,
    STDiT3Config,
    STDiTConfig,
)
from schemas.text import TextConfig, TextPart

if TYPE_CHECKING:
    from opensora_models.text.encoders import TextEncoders

Autoencoder = (
    HunyuanVAE | DCAE | AutoEncoder2D | AutoencoderKL | AutoencoderKLTemporalDecoder | VAETemporal | OpenSoraVAE
)
"""What every one of them has stands in docs/architecture.md, "Autoencoders"."""


Denoiser = MMDiT | STDiT3 | STDiT2 | STDiT | DiT | Latte | PixArt
"""What every one of them has stands in docs/architecture.md, "Denoisers"."""


def build_denoiser(config: DenoiserConfig) -> Denoiser:
    """Return the denoiser with random weights, on the current default device."""
    match config:
        case MMDiTConfig():
            return MMDiT(config)
        case STDiT3Config():
            return STDiT3(config)
        case STDiT2Config():
            return STDiT2(config)
        case STDiTConfig():
            return STDiT(config)
        case DiTConfig():
            return DiT(config)
        case LatteConfig():
            return Latte(config)
        case PixArtConfig():
            return PixArt(config)
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
        case AutoencoderKLConfig():
            return AutoencoderKL(config)
        case AutoencoderKLTemporalDecoderConfig():
            return AutoencoderKLTemporalDecoder(config)
        case VAETemporalConfig():
            return VAETemporal(config)
        case OpenSoraVAEConfig():
            return OpenSoraVAE(config, AutoencoderKL(config.vae_2d))
        case _:
            assert_never(config)


def build_text_encoders(
    config: TextConfig, parts: tuple[TextPart, ...], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> "TextEncoders":
    """Return the text encoders that give `parts`, with their weights, frozen.

    Raises OsoraError where one is not on this machine.
    """
    # transformers takes seconds to import, and who counts parameters or trains an autoencoder needs none of it.
    from opensora_models.text.encoders import ClipEncoder, T5Encoder, TextEncoders

    t5 = clip = None
    if "t5" in parts:
        one = config.t5
        t5 = T5Encoder(one.from_pretrained, one.max_length, dtype, cleaning=one.cleaning, masked=one.masked).to(device)
    if "clip" in parts:
        one = config.clip
        clip = ClipEncoder(one.from_pretrained, one.max_length, dtype, cleaning=one.cleaning).to(device)
    return TextEncoders(parts, t5, clip)
