"""Encoder and decoder: convolutional pyramids around a middle block."""

import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.hunyuan_vae.blocks import NORM_EPS, CausalConv3d, DownBlock, MidBlock, Strides, UpBlock
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig


def step_strides(config: HunyuanVAEConfig) -> list[Strides]:
    """Return the strides of the encoder's steps in order; the decoder's are the same steps, in its own order.

    Every step halves height and width. The last `log2(time_compression_ratio)` of them also halve the time, whichever way
    the pyramid is walked, so with ratio 4 the decoder's first step enlarges only space.
    """
    steps = len(config.block_out_channels) - 1
    timed = config.time_compression_ratio.bit_length() - 1
    return [(2 if step >= steps - timed else 1, 2, 2) for step in range(steps)]


class Encoder(nn.Module):
    """Pixels to the moments of the latents."""

    def __init__(self, config: HunyuanVAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(before, width, config.layers_per_block, groups, strides)
            for before, width, strides in zip((widths[0], *widths), widths, [*step_strides(config), None], strict=False)
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the features (B, 2 * latent_channels, t, h, w)."""
        x_BCTHW = self.conv_in(x_BCTHW)
        for block in self.down_blocks:
            x_BCTHW = block(x_BCTHW)
        x_BCTHW = self.mid_block(x_BCTHW)
        return self.conv_out(F.silu(self.conv_norm_out(x_BCTHW)))


class Decoder(nn.Module):
    """Latents to pixels; each resolution has one residual block more than the encoder's."""

    def __init__(self, config: HunyuanVAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, width, config.layers_per_block + 1, groups, strides)
            for before, width, strides in zip((widths[0], *widths), widths, [*step_strides(config), None], strict=False)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        """Return pixels (B, out_channels, T, H, W)."""
        z_BCTHW = self.mid_block(self.conv_in(z_BCTHW))
        for block in self.up_blocks:
            z_BCTHW = block(z_BCTHW)
        return self.conv_out(F.silu(self.conv_norm_out(z_BCTHW)))
