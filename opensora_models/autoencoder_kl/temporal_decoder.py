"""Stable Video Diffusion's decoder: residual blocks over pixels, each blended with one over neighbouring frames.

Legend: N frames of all clips in a row (B T), C channels, H W pixels.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_models.autoencoder_kl.blocks import PixelAttention, ResnetBlock, Upsample, norm
from opensora_models.layers.residual import added
from schemas.autoencoder import AutoencoderKLTemporalDecoderConfig

TEMPORAL_EPS = 1e-5


class TemporalResnetBlock(nn.Module):
    """Two normalised convolutions over three frames beside the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, TEMPORAL_EPS)
        self.conv1 = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        self.norm2 = nn.GroupNorm(groups, channels, TEMPORAL_EPS)
        self.conv2 = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Keep the shape."""
        hidden = self.conv1(F.silu(self.norm1(x_BCTHW), inplace=True))
        hidden = F.silu(self.norm2(hidden), inplace=True)
        return added(self.conv2(hidden), x_BCTHW)


class TimeMixer(nn.Module):
    """How much of the result comes from neighbouring frames: the sigmoid of a learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Blend the two."""
        return torch.lerp(spatial, temporal, torch.sigmoid(self.mix_factor).to(spatial.dtype))


class SpatioTemporalResBlock(nn.Module):
    """A residual block over pixels and one over frames, blended."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.spatial_res_block = ResnetBlock(in_channels, out_channels, groups)
        self.temporal_res_block = TemporalResnetBlock(out_channels, groups)
        self.time_mixer = TimeMixer()

    def forward(self, x_NCHW: Tensor, batch: int) -> Tensor:
        """Return (N, out_channels, H, W); `batch` is the number of clips whose frames these are."""
        spatial = by_clip(self.spatial_res_block(x_NCHW), batch)
        return in_a_row(self.time_mixer(spatial, self.temporal_res_block(spatial)))


class MidBlock(nn.Module):
    """Residual, attention, residual. Of more layers than two the published model has the weights and no use."""

    def __init__(self, channels: int, layers: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([PixelAttention(channels, groups)])
        self.resnets = nn.ModuleList(SpatioTemporalResBlock(channels, channels, groups) for _ in range(layers))

    def forward(self, x_NCHW: Tensor, batch: int) -> Tensor:
        """Keep the shape."""
        x_NCHW = self.resnets[0](x_NCHW, batch)
        for resnet in self.resnets[1:2]:  # with one layer, the attention has no use either
            x_NCHW = resnet(self.attentions[0](x_NCHW), batch)
        return x_NCHW


class UpBlock(nn.Module):
    """The residual blocks of one resolution, and the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, *, last: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(SpatioTemporalResBlock(widths[i], widths[i + 1], groups) for i in range(layers))
        self.upsamplers = nn.ModuleList([] if last else [Upsample(out_channels)])

    def forward(self, x_NCHW: Tensor, batch: int) -> Tensor:
        """Apply the blocks, then the step of the level where it has one."""
        for resnet in self.resnets:
            x_NCHW = resnet(x_NCHW, batch)
        for step in self.upsamplers:
            x_NCHW = step(x_NCHW)
        return x_NCHW


class TemporalDecoder(nn.Module):
    """Latents of whole clips to pixels."""

    def __init__(self, config: AutoencoderKLTemporalDecoderConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], config.layers_per_block, groups)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, width, config.layers_per_block + 1, groups, last=index + 1 == len(widths))
            for index, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.conv_norm_out = norm(groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)
        self.time_conv_out = nn.Conv3d(config.out_channels, config.out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        """Return pixels (B, out_channels, T, H, W)."""
        batch = z_BCTHW.shape[0]
        x_NCHW = self.mid_block(self.conv_in(in_a_row(z_BCTHW)), batch)
        for block in self.up_blocks:
            x_NCHW = block(x_NCHW, batch)
        x_NCHW = self.conv_out(F.silu(self.conv_norm_out(x_NCHW), inplace=True))
        return self.time_conv_out(by_clip(x_NCHW, batch))


def by_clip(x_NCHW: Tensor, batch: int) -> Tensor:
    """Return frames in a row as clips."""
    return rearrange(x_NCHW, "(b t) c h w -> b c t h w", b=batch)


def in_a_row(x_BCTHW: Tensor) -> Tensor:
    """Return the frames of all clips in a row."""
    return rearrange(x_BCTHW, "b c t h w -> (b t) c h w")
