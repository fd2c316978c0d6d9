"""The blocks of the image autoencoder. Attribute names are the keys of the published checkpoint."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NORM_GROUPS, NORM_EPS = 32, 1e-6


def norm(channels: int) -> nn.GroupNorm:
    """Return the group norm that stands before every convolution and the attention."""
    return nn.GroupNorm(NORM_GROUPS, channels, NORM_EPS)


class ResnetBlock(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the shortcut plus the residual."""
        hidden = self.conv1(F.silu(self.norm1(x_BCHW), inplace=True))
        return self.nin_shortcut(x_BCHW) + self.conv2(F.silu(self.norm2(hidden), inplace=True))


class PixelAttention(nn.Module):
    """One-head attention over all pixels of a picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the input plus what its pixels attend to."""
        normed = self.norm(x_BCHW)
        q, k, v = (rearrange(layer(normed), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x_BCHW + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=x_BCHW.shape[2]))


class Middle(nn.Module):
    """Residual, attention, residual, at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = PixelAttention(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Keep the shape."""
        return self.block_2(self.attn_1(self.block_1(x_BCHW)))


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
