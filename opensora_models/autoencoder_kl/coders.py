"""Encoder and decoder of pictures."""

import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.autoencoder_kl.blocks import DownBlock, MidBlock, UpBlock, norm
from schemas.autoencoder import AutoencoderKLConfig, AutoencoderKLTemporalDecoderConfig


class Encoder(nn.Module):
    """Pixels to the moments of the latents."""

    def __init__(self, config: AutoencoderKLConfig | AutoencoderKLTemporalDecoderConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(before, width, config.layers_per_block, groups, last=index + 1 == len(widths))
            for index, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = norm(groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the features (B, 2 * latent_channels, h, w)."""
        x_BCHW = self.conv_in(x_BCHW)
        for block in self.down_blocks:
            x_BCHW = block(x_BCHW)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x_BCHW)), inplace=True))


class Decoder(nn.Module):
    """Latents to pixels; each resolution has one residual block more than the encoder's."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, width, config.layers_per_block + 1, groups, last=index + 1 == len(widths))
            for index, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.conv_norm_out = norm(groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Return pixels (B, out_channels, H, W)."""
        z_BCHW = self.mid_block(self.conv_in(z_BCHW))
        for block in self.up_blocks:
            z_BCHW = block(z_BCHW)
        return self.conv_out(F.silu(self.conv_norm_out(z_BCHW), inplace=True))
