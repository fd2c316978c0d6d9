"""Encoder and decoder along time. Block i of either belongs to channel_multipliers[i]; the decoder goes from the last."""

import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.open_sora_vae.blocks import CausalConv3d, UpsampleTime, res_blocks
from schemas.autoencoder import VAETemporalConfig


class TemporalEncoder(nn.Module):
    """Frames to the moments of the latents, before quant_conv."""

    def __init__(self, config: VAETemporalConfig) -> None:
        super().__init__()
        widths, count, groups = _widths(config), config.num_res_blocks, config.num_groups
        self.conv_in = CausalConv3d(config.in_out_channels, config.filters, bias=False)
        self.block_res_blocks = nn.ModuleList(
            res_blocks(before, width, count, groups)
            for before, width in zip((config.filters, *widths), widths, strict=False)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, time_stride=2) if halves else nn.Identity()
            for width, halves in zip(widths, config.temporal_downsample, strict=False)
        )
        self.res_blocks = nn.ModuleList(res_blocks(widths[-1], widths[-1], count, groups))
        self.norm1 = nn.GroupNorm(groups, widths[-1])
        self.conv2 = CausalConv3d(widths[-1], 2 * config.latent_embed_dim, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the features (B, 2 * latent_embed_dim, t, H, W)."""
        x_BCTHW = self.conv_in(x_BCTHW)
        for index, block in enumerate(self.block_res_blocks):
            x_BCTHW = block(x_BCTHW)
            if index < len(self.conv_blocks):
                x_BCTHW = self.conv_blocks[index](x_BCTHW)
        for block in self.res_blocks:
            x_BCTHW = block(x_BCTHW)
        return self.conv2(F.silu(self.norm1(x_BCTHW), inplace=True))


class TemporalDecoder(nn.Module):
    """Latents, after post_quant_conv, to frames."""

    def __init__(self, config: VAETemporalConfig) -> None:
        super().__init__()
        widths, count, groups = _widths(config), config.num_res_blocks, config.num_groups
        self.conv1 = CausalConv3d(config.latent_embed_dim, widths[-1])
        self.res_blocks = nn.ModuleList(res_blocks(widths[-1], widths[-1], count, groups))
        self.block_res_blocks = nn.ModuleList(
            res_blocks(before, width, count, groups)
            for before, width in zip((*widths[1:], widths[-1]), widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            UpsampleTime(width) if doubles else nn.Identity()
            for width, doubles in zip(widths[1:], config.temporal_downsample, strict=True)
        )
        self.norm1 = nn.GroupNorm(groups, widths[0])
        self.conv_out = CausalConv3d(widths[0], config.in_out_channels)

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        """Return frames (B, in_out_channels, T, H, W)."""
        z_BCTHW = self.conv1(z_BCTHW)
        for block in self.res_blocks:
            z_BCTHW = block(z_BCTHW)
        for index in reversed(range(len(self.block_res_blocks))):
            z_BCTHW = self.block_res_blocks[index](z_BCTHW)
            if index > 0:
                z_BCTHW = self.conv_blocks[index - 1](z_BCTHW)
        return self.conv_out(F.silu(self.norm1(z_BCTHW), inplace=True))


def _widths(config: VAETemporalConfig) -> list[int]:
    return [config.filters * factor for factor in config.channel_multipliers]
