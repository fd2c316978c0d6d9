"""Configs become modules."""

import subprocess
import sys

import torch

from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.mmdit.model import MMDiT
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from schemas.denoiser.mmdit import MMDiTConfig


def test_defaults_are_the_published_sizes_and_build_on_meta() -> None:
    with torch.device("meta"):
        denoiser = build_denoiser(MMDiTConfig(cond_embed=True, fused_qkv=False, use_liger_rope=True))
        autoencoder = build_autoencoder(HunyuanVAEConfig())
    assert isinstance(denoiser, MMDiT)
    assert isinstance(autoencoder, HunyuanVAE)
    assert sum(weight.numel() for weight in denoiser.parameters()) == 11_891_390_528
    assert sum(weight.numel() for weight in autoencoder.parameters()) == 246_478_803


def test_building_a_denoiser_does_not_wait_for_transformers() -> None:
    code = "import sys, opensora_models.build; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
