"""The blocks of the stage along time. Attribute names are the keys of the published checkpoint."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_models.layers.residual import added


class CausalConv3d(nn.Module):
    """A convolution that sees no later frame: zeros stand in front of the first."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, time_stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.frames_before = kernel - time_stride
        side = kernel // 2
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel, stride=(time_stride, 1, 1), padding=(0, side, side), bias=bias
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Keep the sides; keep the frames, or one of every time_stride."""
        return self.conv(F.pad(x_BCTHW, (0, 0, 0, 0, self.frames_before, 0)) if self.frames_before else x_BCTHW)


class ResBlock(nn.Module):
    """Two normalised convolutions beside a shortcut; none of them has a bias."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, bias=False)
        widens = in_channels != out_channels
        self.conv3 = CausalConv3d(in_channels, out_channels, 1, bias=False) if widens else nn.Identity()

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the shortcut plus the residual."""
        hidden = self.conv1(F.silu(self.norm1(x_BCTHW), inplace=True))
        hidden = F.silu(self.norm2(hidden), inplace=True)  # lets go of what the norm was given
        return added(self.conv2(hidden), self.conv3(x_BCTHW))


class UpsampleTime(CausalConv3d):
    """Twice as many channels, each pair of which becomes two frames."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Double the frames."""
        return rearrange(super().forward(x_BCTHW), "b (c two) t h w -> b c (t two) h w", two=2)


def res_blocks(in_channels: int, out_channels: int, count: int, groups: int) -> nn.Sequential:
    """Return a row of residual blocks."""
    widths = [in_channels] + [out_channels] * count
    return nn.Sequential(*(ResBlock(widths[i], widths[i + 1], groups) for i in range(count)))
