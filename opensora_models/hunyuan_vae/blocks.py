"""The blocks of the causal video autoencoder. Attribute names are the keys of the published checkpoint.

B batch, C channels, T frames, H height, W width; strides are (time, height, width).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NORM_EPS = 1e-6
Strides = tuple[int, int, int]


class CausalConv3d(nn.Module):
    """A convolution that repeats the border: both sides in space, only the past in time."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: Strides = (1, 1, 1)) -> None:
        super().__init__()
        side = kernel // 2
        self.padding = (side, side, side, side, kernel - 1, 0)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Convolve; a stride s makes (n - 1) // s + 1 of n."""
        if any(self.padding):
            x_BCTHW = F.pad(x_BCTHW, self.padding, mode="replicate")
        return self.conv(x_BCTHW)


class ResnetBlock(nn.Module):
    """Two normalised convolutions beside a shortcut. The group norms take statistics over all frames."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, NORM_EPS)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, NORM_EPS)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = (
            CausalConv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the shortcut plus the residual."""
        hidden = self.conv1(F.silu(self.norm1(x_BCTHW)))
        return self.conv_shortcut(x_BCTHW) + self.conv2(F.silu(self.norm2(hidden)))


class FrameCausalAttention(nn.Module):
    """One-head attention over pixels, in which a pixel sees its own frame and the earlier ones."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the input plus what its pixels attend to."""
        frames, height, width = x_BCTHW.shape[2:]
        x_B1LC = rearrange(self.group_norm(x_BCTHW), "b c t h w -> b 1 (t h w) c")
        q, k, v = self.to_q(x_B1LC), self.to_k(x_B1LC), self.to_v(x_B1LC)
        # One frame of queries at a time: no mask of (T H W)^2 entries, and half the products.
        pixels = height * width
        ends = [pixels * (frame + 1) for frame in range(frames)]
        out_B1LC = torch.cat(
            [F.scaled_dot_product_attention(q[:, :, end - pixels : end], k[:, :, :end], v[:, :, :end]) for end in ends],
            dim=2,
        )
        out_B1LC = self.to_out[0](out_B1LC)
        return x_BCTHW + rearrange(out_B1LC, "b 1 (t h w) c -> b c t h w", t=frames, h=height)


class MidBlock(nn.Module):
    """Residual, attention (optional), residual, at the lowest resolution."""

    def __init__(self, channels: int, groups: int, add_attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([FrameCausalAttention(channels, groups)] if add_attention else [])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Keep the shape."""
        x_BCTHW = self.resnets[0](x_BCTHW)
        for attention in self.attentions:
            x_BCTHW = attention(x_BCTHW)
        return self.resnets[1](x_BCTHW)


class Downsample(nn.Module):
    """A strided causal convolution."""

    def __init__(self, channels: int, strides: Strides) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=strides)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Shrink each axis n to (n - 1) // stride + 1."""
        return self.conv(x_BCTHW)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a causal convolution. In time, the first frame stays single."""

    def __init__(self, channels: int, strides: Strides) -> None:
        super().__init__()
        self.strides = strides
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Enlarge height and width by their strides and T frames to 1 + stride * (T - 1)."""
        time, height, width = self.strides
        if time == 1:
            return self.conv(F.interpolate(x_BCTHW, scale_factor=(1, height, width), mode="nearest"))
        first, rest = x_BCTHW[:, :, :1], x_BCTHW[:, :, 1:]
        parts = [F.interpolate(first, scale_factor=(1, height, width), mode="nearest")]
        if rest.shape[2]:
            parts.append(F.interpolate(rest, scale_factor=(time, height, width), mode="nearest"))
        return self.conv(torch.cat(parts, 2))


class DownBlock(nn.Module):
    """Residual blocks of one resolution, then the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, strides: Strides | None) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1], groups) for i in range(layers))
        self.downsamplers = nn.ModuleList([Downsample(out_channels, strides)] if strides else [])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Change the channels, and the size where the block has a step."""
        for layer in (*self.resnets, *self.downsamplers):
            x_BCTHW = layer(x_BCTHW)
        return x_BCTHW


class UpBlock(nn.Module):
    """Residual blocks of one resolution, then the step to the next larger one."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, strides: Strides | None) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1], groups) for i in range(layers))
        self.upsamplers = nn.ModuleList([Upsample(out_channels, strides)] if strides else [])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Change the channels, and the size where the block has a step."""
        for layer in (*self.resnets, *self.upsamplers):
            x_BCTHW = layer(x_BCTHW)
        return x_BCTHW
