"""Encoder and decoder: stages from the widest picture to the latent. A decoder's stage i belongs to resolution i."""

from torch import Tensor, nn

from opensora_models.dc_ae.blocks import AttentionBlock, ChannelNorm, ConvLayer, OpList, ResBlock, Residual
from opensora_models.dc_ae.resampling import (
    ChannelAverage,
    ChannelRepeat,
    ConvDown,
    InterpolateUp,
    ShuffleUp,
    UnshuffleDown,
)
from schemas.autoencoder.dc_ae import BlockType, DCAEShape

COLOURS = 3


def block(kind: BlockType, channels: int, dims: int, batch_norm: bool = False) -> nn.Module:
    """Return one block of a stage."""
    if kind == "ResBlock":
        return Residual(ResBlock(channels, dims, batch_norm))
    return AttentionBlock(channels, dims, wide=kind == "EViTS5_GLU")


def step_down(shape: DCAEShape, in_channels: int, out_channels: int, timed: bool) -> nn.Module:
    """Return the convolution of a step to the next smaller resolution."""
    if shape.downsample == "ConvPixelUnshuffle":
        return UnshuffleDown(in_channels, out_channels)
    return ConvDown(in_channels, out_channels, shape.dims, timed)


def step_up(shape: DCAEShape, in_channels: int, out_channels: int, timed: bool) -> nn.Module:
    """Return the convolution of a step to the next larger resolution."""
    if shape.upsample == "ConvPixelShuffle":
        return ShuffleUp(in_channels, out_channels)
    return InterpolateUp(in_channels, out_channels, shape.dims, timed)


class Encoder(nn.Module):
    """Pixels to raw latents. With no blocks in the first stage, its step takes the pixels themselves."""

    def __init__(self, shape: DCAEShape) -> None:
        super().__init__()
        widths, depths = shape.width_list, shape.encoder_depth_list
        self.project_in = (
            ConvLayer(COLOURS, widths[0], shape.dims)
            if depths[0]
            else step_down(shape, COLOURS, widths[1], shape.temporal_downsample[0])
        )
        self.stages = nn.ModuleList(_down_stage(shape, index) for index in range(len(widths)))
        latents = shape.latent_channels
        self.project_out = Residual(
            OpList(ConvLayer(widths[-1], latents, shape.dims)), ChannelAverage(latents, step=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return raw latents of clips or pictures."""
        x = self.project_in(x)
        for stage in self.stages:
            x = stage(x)
        return self.project_out(x)


def _down_stage(shape: DCAEShape, index: int) -> OpList:
    width, depth = shape.width_list[index], shape.encoder_depth_list[index]
    operations = [block(shape.block_type[index], width, shape.dims) for _ in range(depth)]
    if index + 1 < len(shape.width_list) and depth:
        out, timed = shape.width_list[index + 1], shape.temporal_downsample[index]
        operations.append(Residual(step_down(shape, width, out, timed), ChannelAverage(out, timed=timed)))
    return OpList(*operations)


class Decoder(nn.Module):
    """Raw latents to pixels."""

    def __init__(self, shape: DCAEShape) -> None:
        super().__init__()
        widths, depths = shape.width_list, shape.decoder_depth_list
        self.project_in = Residual(
            ConvLayer(shape.latent_channels, widths[-1], shape.dims), ChannelRepeat(widths[-1], step=False)
        )
        self.stages = nn.ModuleList(_up_stage(shape, index) for index in range(len(widths)))
        last = widths[0] if depths[0] else widths[1]
        out = (
            ConvLayer(last, COLOURS, shape.dims)
            if depths[0]
            else step_up(shape, last, COLOURS, shape.temporal_downsample[0])
        )
        self.project_out = OpList(ChannelNorm(last), nn.ReLU(), out)

    def forward(self, z: Tensor) -> Tensor:
        """Return the pixels of clips or pictures."""
        z = self.project_in(z)
        for stage in reversed(self.stages):
            z = stage(z)
        return self.project_out(z)


def _up_stage(shape: DCAEShape, index: int) -> OpList:
    width, depth = shape.width_list[index], shape.decoder_depth_list[index]
    operations: list[nn.Module] = []
    if index + 1 < len(shape.width_list) and depth:
        before, timed = shape.width_list[index + 1], shape.temporal_downsample[index]
        operations.append(Residual(step_up(shape, before, width, timed), ChannelRepeat(width, timed=timed)))
    operations += [block(shape.block_type[index], width, shape.dims, shape.decoder_batch_norm) for _ in range(depth)]
    return OpList(*operations)
