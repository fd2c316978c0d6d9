"""Tiny models for tests of sampling: random, with no weight left at zero."""

import torch
from torch import Tensor, nn

from opensora_cli.sampling.generate import Generator
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.mmdit.model import MMDiT
from opensora_models.text.features import TextFeatures
from schemas.autoencoder import HunyuanVAEConfig
from schemas.denoiser import MMDiTConfig

MODEL = MMDiTConfig(
    in_channels=16,
    vec_in_dim=8,
    context_in_dim=12,
    hidden_size=32,
    mlp_ratio=2.0,
    num_heads=2,
    depth=1,
    depth_single_blocks=1,
    axes_dim=(4, 6, 6),
    cond_embed=True,
    fused_qkv=False,
    use_liger_rope=True,
)
DISTILLED = MODEL.model_copy(update={"cond_embed": False, "guidance_embed": True})
AUTOENCODER = HunyuanVAEConfig(
    latent_channels=4, layers_per_block=1, block_out_channels=(4, 8, 8, 8), norm_num_groups=2, scale_factor=1.0
)


class Counting(nn.Module):
    """Counts the rows that go through a denoiser, and its calls."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.rows = 0
        self.calls = 0

    def forward(self, img_BND: Tensor, **inputs: Tensor | None) -> Tensor:
        self.rows += len(img_BND)
        self.calls += 1
        return self.inner(img_BND=img_BND, **inputs)


def randomised(module: nn.Module, seed: int) -> nn.Module:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2)
    return module.requires_grad_(False).eval()


def denoiser(config: MMDiTConfig = MODEL) -> Counting:
    return Counting(randomised(MMDiT(config), 1))


def models(config: MMDiTConfig = MODEL) -> Generator:
    return Generator(denoiser(config), randomised(HunyuanVAE(AUTOENCODER), 2), config)


def text(rows: int, seed: int) -> TextFeatures:
    """Rows that do not depend on how many there are."""
    draws = [torch.Generator().manual_seed(seed + row) for row in range(rows)]
    tokens = torch.stack([torch.randn(3, 12, generator=draw) for draw in draws])
    return TextFeatures({"t5": tokens, "clip": torch.stack([torch.randn(8, generator=draw) for draw in draws])})
