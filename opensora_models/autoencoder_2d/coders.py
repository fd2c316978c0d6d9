"""Encoder and decoder of the image autoencoder. A level i of either belongs to resolution i."""

import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.autoencoder_2d.blocks import Downsample, Middle, ResnetBlock, Upsample, norm
from schemas.autoencoder.autoencoder_2d import AutoEncoder2DConfig


class Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResnetBlock(widths[index], widths[index + 1]) for index in range(blocks))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply the blocks, then the step of the level where it has one."""
        for layer in self.children():
            for part in layer if isinstance(layer, nn.ModuleList) else (layer,):
                x_BCHW = part(x_BCHW)
        return x_BCHW


class DownLevel(Level):
    """A level of the encoder."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, last: bool) -> None:
        super().__init__(in_channels, out_channels, blocks)
        if not last:
            self.downsample = Downsample(out_channels)


class UpLevel(Level):
    """A level of the decoder."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, last: bool) -> None:
        super().__init__(in_channels, out_channels, blocks)
        if not last:
            self.upsample = Upsample(out_channels)


class Encoder(nn.Module):
    """Pixels to the moments of the latents."""

    def __init__(self, config: AutoEncoder2DConfig) -> None:
        super().__init__()
        widths = [config.ch * factor for factor in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            DownLevel(before, width, config.num_res_blocks, last=index + 1 == len(widths))
            for index, (before, width) in enumerate(zip((config.ch, *widths), widths, strict=False))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the features (B, 2 * z_channels, h, w)."""
        x_BCHW = self.conv_in(x_BCHW)
        for level in self.down:
            x_BCHW = level(x_BCHW)
        return self.conv_out(F.silu(self.norm_out(self.mid(x_BCHW)), inplace=True))


class Decoder(nn.Module):
    """Latents to pixels; each level has one residual block more than the encoder's."""

    def __init__(self, config: AutoEncoder2DConfig) -> None:
        super().__init__()
        widths = [config.ch * factor for factor in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            UpLevel(before, width, config.num_res_blocks + 1, last=index == 0)
            for index, (width, before) in enumerate(zip(widths, (*widths[1:], widths[-1]), strict=True))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Return pixels (B, out_ch, H, W)."""
        z_BCHW = self.mid(self.conv_in(z_BCHW))
        for level in reversed(self.up):
            z_BCHW = level(z_BCHW)
        return self.conv_out(F.silu(self.norm_out(z_BCHW), inplace=True))
