"""The blocks of Stable Diffusion's autoencoder. Attribute names are the keys of the published checkpoints."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_models.layers.residual import added

NORM_EPS = 1e-6


def norm(groups: int, channels: int) -> nn.GroupNorm:
    """Return the group norm that stands before every convolution and the attention."""
    return nn.GroupNorm(groups, channels, NORM_EPS)


class ResnetBlock(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = norm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the shortcut plus the residual."""
        hidden = self.conv1(F.silu(self.norm1(x_BCHW), inplace=True))
        hidden = F.silu(self.norm2(hidden), inplace=True)  # lets go of what the norm was given
        return added(self.conv2(hidden), self.conv_shortcut(x_BCHW))


class PixelAttention(nn.Module):
    """One-head attention over all pixels of a picture."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = norm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the input plus what its pixels attend to."""
        normed = rearrange(self.group_norm(x_BCHW), "b c h w -> b 1 (h w) c")
        out = F.scaled_dot_product_attention(self.to_q(normed), self.to_k(normed), self.to_v(normed))
        return x_BCHW + rearrange(self.to_out(out), "b 1 (h w) c -> b c h w", h=x_BCHW.shape[2])


class MidBlock(nn.Module):
    """Residual, attention, residual, at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([PixelAttention(channels, groups)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Keep the shape."""
        before, after = self.resnets
        return after(self.attentions[0](before(x_BCHW)))


class Downsample(nn.Module):
    """A strided convolution over a border of zeros to the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Halve both sides, rounding down."""
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Double both sides."""
        return self.conv(F.interpolate(x_BCHW, scale_factor=2, mode="nearest"))


class DownBlock(nn.Module):
    """The residual blocks of one resolution of the encoder, and the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, *, last: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1], groups) for i in range(layers))
        self.downsamplers = nn.ModuleList([] if last else [Downsample(out_channels)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply the blocks, then the step of the level where it has one."""
        for part in (*self.resnets, *self.downsamplers):
            x_BCHW = part(x_BCHW)
        return x_BCHW


class UpBlock(nn.Module):
    """The residual blocks of one resolution of the decoder, and the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, *, last: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1], groups) for i in range(layers))
        self.upsamplers = nn.ModuleList([] if last else [Upsample(out_channels)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply the blocks, then the step of the level where it has one."""
        for part in (*self.resnets, *self.upsamplers):
            x_BCHW = part(x_BCHW)
        return x_BCHW
