"""Denoisers: the tagged union is the registry of families."""

from typing import Annotated

from pydantic import Discriminator

from schemas.denoiser.dit import DiTConfig
from schemas.denoiser.latent import LatentDenoiser
from schemas.denoiser.latte import LatteConfig
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.denoiser.pixart import PixArtConfig
from schemas.denoiser.stdit import STDiTConfig
from schemas.denoiser.stdit2 import STDiT2Config
from schemas.denoiser.stdit3 import STDiT3Config

DenoiserConfig = Annotated[
    MMDiTConfig | STDiT3Config | STDiT2Config | STDiTConfig | DiTConfig | LatteConfig | PixArtConfig,
    Discriminator("type"),
]
"""Every member has `texts`, `takes_frames`, `patch_side`, `hidden_size` and `num_heads`; all but mmdit are `LatentDenoiser`s."""

__all__ = [
    "DenoiserConfig",
    "DiTConfig",
    "LatentDenoiser",
    "LatteConfig",
    "MMDiTConfig",
    "PixArtConfig",
    "STDiT2Config",
    "STDiT3Config",
    "STDiTConfig",
]
