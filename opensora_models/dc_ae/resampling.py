"""Steps between the resolutions of the deep-compression autoencoder, with shortcuts that move pixels into channels and back.

A step halves or doubles height and width, and the time of clips where it is `timed` and there is more than one frame: a
single frame is a picture and stays one.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_models.dc_ae.blocks import ConvLayer

FACTOR = 2


def to_channels(x: Tensor, timed: bool) -> Tensor:
    """Move 2 x 2 pixels (of two frames) into channels; a channel's pixels stay side by side, frame first, then row."""
    if x.dim() == 4:
        return F.pixel_unshuffle(x, FACTOR)
    time = FACTOR if timed else 1
    return rearrange(x, "b c (t k) (h i) (w j) -> b (c k i j) t h w", k=time, i=FACTOR, j=FACTOR)


def to_pixels(x: Tensor, timed: bool) -> Tensor:
    """Undo `to_channels`."""
    if x.dim() == 4:
        return F.pixel_shuffle(x, FACTOR)
    time = FACTOR if timed else 1
    return rearrange(x, "b (c k i j) t h w -> b c (t k) (h i) (w j)", k=time, i=FACTOR, j=FACTOR)


def average_channels(x: Tensor, channels: int) -> Tensor:
    """Return the means of neighbouring channels, so many that `channels` are left."""
    return x.unflatten(1, (channels, -1)).mean(2)


def repeat_channels(x: Tensor, channels: int) -> Tensor:
    """Repeat every channel, so often that there are `channels`."""
    return x.repeat_interleave(channels // x.shape[1], 1)


class ChannelAverage(nn.Module):
    """The shortcut of a step down, or (without a step) of the encoder's end."""

    def __init__(self, channels: int, *, step: bool = True, timed: bool = False) -> None:
        super().__init__()
        self.channels, self.step, self.timed = channels, step, timed

    def forward(self, x: Tensor) -> Tensor:
        """Return `channels` means."""
        if self.step:
            x = to_channels(x, self.timed and x.shape[2] > 1)
        return average_channels(x, self.channels)


class ChannelRepeat(nn.Module):
    """The shortcut of a step up, or (without a step) of the decoder's start."""

    def __init__(self, channels: int, *, step: bool = True, timed: bool = False) -> None:
        super().__init__()
        self.channels, self.step, self.timed = channels, step, timed

    def forward(self, x: Tensor) -> Tensor:
        """Return `channels` copies of the channels, or of what they hold."""
        if not self.step:
            return repeat_channels(x, self.channels)
        timed = self.timed and x.shape[2] > 1
        return to_pixels(repeat_channels(x, self.channels * FACTOR**2 * (FACTOR if timed else 1)), timed)


class ConvDown(ConvLayer):
    """A strided convolution."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, timed: bool) -> None:
        stride = (FACTOR,) * dims if timed or dims == 2 else (1, FACTOR, FACTOR)
        super().__init__(in_channels, out_channels, dims, stride=stride)


class UnshuffleDown(nn.Module):
    """A convolution to a quarter of the channels, of which 2 x 2 pixels are then one. For pictures."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvLayer(in_channels, out_channels // FACTOR**2, 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Halve both sides."""
        return F.pixel_unshuffle(self.conv(x_BCHW), FACTOR)


class InterpolateUp(nn.Module):
    """Nearest-neighbour enlargement and a convolution. All frames are doubled alike, but a single one is not."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, timed: bool) -> None:
        super().__init__()
        self.timed = timed
        self.conv = ConvLayer(in_channels, out_channels, dims)

    def forward(self, x: Tensor) -> Tensor:
        """Double the sides and, where the step is timed, the frames."""
        scale = (FACTOR, FACTOR) if x.dim() == 4 else (FACTOR if self.timed and x.shape[2] > 1 else 1, FACTOR, FACTOR)
        return self.conv(F.interpolate(x, scale_factor=scale, mode="nearest"))


class ShuffleUp(nn.Module):
    """A convolution to four times the channels, which then become 2 x 2 pixels. For pictures."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvLayer(in_channels, out_channels * FACTOR**2, 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Double both sides."""
        return F.pixel_shuffle(self.conv(x_BCHW), FACTOR)
