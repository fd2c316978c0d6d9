"""Memory and work of the Hunyuan autoencoder, by a walk over its layers with shapes instead of tensors.

The walk follows `opensora_models/hunyuan_vae/blocks.py` and `coders.py`, which is what training runs: `peak` is the most that
is alive at once beside `saved`, which autograd keeps. A module's argument lives until the module returns, since its caller
holds it. Where nothing is trained, the same layers work in parts: their peak is that of `hunyuan_parts.py`.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

from opensora_cli.planning.coded import Coding, Extent, latent_size
from opensora_cli.planning.hunyuan_parts import Place, Step, frames_of_a_part, streamed_peak, waiting_peak
from opensora_cli.planning.precision import STATE, Precision
from schemas.autoencoder import HunyuanVAEConfig

STATISTICS = 8


@dataclass
class Walk:
    """A clip on its way through the layers: `channels` at `extent`, and what was counted so far (bytes, FLOPs)."""

    precision: Precision
    batch: int
    channels: int
    extent: Extent
    peak: int = 0
    saved: int = 0
    flops: int = 0

    @property
    def numbers(self) -> int:
        """Numbers of the tensor at hand."""
        return self.batch * self.channels * prod(self.extent)

    @property
    def size(self) -> int:
        """Bytes of the tensor at hand, as convolutions give it."""
        return self.numbers * self.precision.matrix

    def alive(self, *sizes: int) -> None:
        """Note that tensors of these sizes are alive together."""
        self.peak = max(self.peak, sum(sizes))

    def norm(self) -> None:
        """Save what a group norm and the SiLU behind it keep: the input (or its fp32 copy) and the norm's output."""
        self.saved += 2 * self.numbers * self.precision.norm

    def conv(
        self,
        out: int,
        held: int,
        *,
        stride: Extent = (1, 1, 1),
        kernel: int = 3,
        before: int | None = None,
        fresh: bool = True,
    ) -> None:
        """Pad and convolve while `held` bytes wait elsewhere.

        `before`: bytes a number of the argument, where a norm made it; `fresh`: the argument is no tensor that is counted
        already, so that the padding, which keeps its argument, adds it.
        """
        each = before or self.precision.matrix
        if self.precision.pads_in_fp32 and kernel > 1:
            each, fresh = STATE, True
        argument = self.numbers * each
        frames, height, width = self.extent
        padded = self.batch * self.channels * (frames + kernel - 1) * (height + kernel - 1) * (width + kernel - 1)
        extent = tuple((size - 1) // step + 1 for size, step in zip(self.extent, stride, strict=True))
        self.flops += 2 * self.batch * prod(extent) * self.channels * out * kernel**3
        cast = padded * self.precision.matrix
        if kernel > 1:
            self.saved += cast + (argument if fresh else 0)
        elif fresh:
            self.saved += cast
        self.channels, self.extent = out, (extent[0], extent[1], extent[2])
        pads = padded * each if kernel > 1 else 0
        self.alive(held, argument, pads, cast if each != self.precision.matrix else 0, self.size)

    def resnet(self, out: int, held: int) -> None:
        """Go through a residual block while its callers hold `held` bytes beside its input."""
        entry, into = self.size, self.channels
        short = 0 if into == out else entry // into * out
        same = self.precision.norm == self.precision.matrix
        self.norm()
        self.conv(out, held + entry, before=self.precision.norm)
        if short:
            self.saved += 0 if same else entry
            self.flops += 2 * self.numbers * into
        self.norm()
        self.conv(out, held + entry + short + self.size, before=self.precision.norm)

    def attention(self, held: int) -> None:
        """Go through the frame-causal attention: of each frame's pixels to those of its own and earlier frames."""
        entry, numbers, c = self.size, self.numbers, self.precision.matrix
        frames, height, width = self.extent
        pairs = self.batch * (height * width) ** 2 * frames * (frames + 1) // 2
        self.flops += 4 * pairs * self.channels + 8 * numbers * self.channels
        copies = 1 if self.precision.norm == c else 3
        self.saved += numbers * (self.precision.norm + copies * c + 5 * c)
        self.alive(held, entry, numbers * (self.precision.norm + 5 * c))

    def down(self, stride: Extent, held: int) -> None:
        """Shrink with a strided convolution; its argument is the last block's output."""
        self.conv(self.channels, held, stride=stride)

    def up(self, stride: Extent, held: int) -> None:
        """Enlarge by repeating pixels, then convolve; in time the first frame stays single."""
        entry = self.size
        frames, height, width = self.extent
        self.extent = (1 + stride[0] * (frames - 1), height * stride[1], width * stride[2])
        parts = self.size if stride[0] > 1 else 0  # first frame and rest are enlarged apart, then joined
        self.alive(held, entry, parts, self.size)
        self.conv(self.channels, held + entry + parts)


def steps(config: HunyuanVAEConfig) -> list[Extent]:
    """Return the strides of the encoder's steps, in order; those that halve the time are the last."""
    count = len(config.block_out_channels) - 1
    timed = config.time_compression_ratio.bit_length() - 1
    return [(2 if step >= count - timed else 1, 2, 2) for step in range(count)]


def encode_walk(config: HunyuanVAEConfig, precision: Precision, batch: int, extent: Extent) -> Walk:
    """Walk through the encoder with clips of so many frames and pixels, whole."""
    walk = Walk(precision, batch, config.in_channels, extent)
    pixels = walk.size
    widths = config.block_out_channels
    walk.conv(widths[0], 0, fresh=False)
    for width, stride in zip(widths, [*steps(config), None], strict=True):
        entry = walk.size
        for layer in range(config.layers_per_block):
            walk.resnet(width, pixels + (entry if layer else 0))
        if stride is not None:
            walk.down(stride, pixels + entry)
    _middle(walk, config, pixels)
    walk.norm()
    walk.conv(2 * config.latent_channels, pixels + walk.size, before=precision.norm)
    walk.conv(2 * config.latent_channels, pixels, kernel=1)
    return walk


def decode_walk(config: HunyuanVAEConfig, precision: Precision, batch: int, extent: Extent) -> Walk:
    """Walk through the decoder with latents of so many frames, rows and columns, whole."""
    walk = Walk(precision, batch, config.latent_channels, extent)
    latents = walk.size
    walk.conv(walk.channels, latents, kernel=1)
    widths = config.block_out_channels[::-1]
    walk.conv(widths[0], latents)
    _middle(walk, config, latents)
    for width, stride in zip(widths, [*steps(config), None], strict=True):
        entry = walk.size
        for layer in range(config.layers_per_block + 1):
            walk.resnet(width, latents + (entry if layer else 0))
        if stride is not None:
            walk.up(stride, latents + entry)
    walk.norm()
    walk.conv(config.out_channels, latents + walk.size, before=precision.norm)
    return walk


def _middle(walk: Walk, config: HunyuanVAEConfig, held: int) -> None:
    walk.resnet(walk.channels, held)
    if config.mid_block_add_attention:
        walk.attention(held + walk.size)
    walk.resnet(walk.channels, held + walk.size)


def encode_parts_peak(config: HunyuanVAEConfig, precision: Precision, batch: int, extent: Extent) -> int:
    """Return the bytes alive at most while clips of so many frames and pixels are encoded in parts."""
    widths, matrix, streamed = config.block_out_channels, precision.matrix, config.stream_frames
    part = frames_of_a_part(batch * matrix * widths[0] * extent[1] * extent[2]) if streamed == "whole" else streamed
    place, before, found = Place(*extent, part, batch, matrix), widths[0], []
    for width, stride in zip(widths, [*steps(config), None], strict=True):
        for _ in range(config.layers_per_block):
            found.append(Step(place, before, width))
            before = width
        if stride is not None:
            found.append(Step(place.down(stride), width, width, place))
            place = place.down(stride)
    middle = _middle_peak(config, precision, batch, (place.frames, place.height, place.width))
    return max(middle, waiting_peak(found) if streamed == "whole" else streamed_peak(found) + place.whole(before))


def decode_parts_peak(config: HunyuanVAEConfig, precision: Precision, batch: int, extent: Extent) -> int:
    """Return the bytes alive at most while latents of so many frames, rows and columns are decoded in parts."""
    widths, matrix, streamed = config.block_out_channels[::-1], precision.matrix, config.stream_frames
    latents = max(1, streamed // config.time_compression_ratio) if streamed != "whole" else None
    part = latents or frames_of_a_part(batch * matrix * widths[0] * extent[1] * extent[2])
    place, before, found = Place(*extent, part, batch, matrix), widths[0], []
    middle = _middle_peak(config, precision, batch, extent)
    for width, stride in zip(widths, [*steps(config), None], strict=True):
        for _ in range(config.layers_per_block + 1):
            found.append(Step(place, before, width))
            before = width
        if stride is not None:
            larger = place.up(stride, width, latents is not None)
            found.append(Step(larger, width, width, place))
            place = larger
    pixels = place.whole(config.out_channels)
    first = Place(*extent, part, batch, matrix).whole(widths[0])  # the middle's output, of which parts are views
    return max(middle, pixels + (waiting_peak(found) if latents is None else streamed_peak(found) + first))


def _middle_peak(config: HunyuanVAEConfig, precision: Precision, batch: int, extent: Extent) -> int:
    walk = Walk(precision, batch, config.block_out_channels[-1], extent)
    _middle(walk, config, 0)
    return walk.peak


def walked_coding(
    config: HunyuanVAEConfig,
    precision: Precision,
    batch: int,
    extent: Extent,
    direction: Literal["encode", "decode"],
    *,
    trained: bool,
) -> Coding:
    """Return the cost of a batch in tiles where the configuration asks for them; `extent` is in pixels either way.

    `trained`: in one go, as where gradients are wanted; else in parts.
    """
    space, time = config.sample_size, config.sample_tsize
    if direction == "decode":
        extent = latent_size(config, extent)
        space, time = space // config.spatial_compression_ratio, time // config.time_compression_ratio
    walk = encode_walk if direction == "encode" else decode_walk
    pieces = [
        (frames, height, width)
        for frames in _time_tiles(config, extent[0], time)
        for height, width in _space_tiles(config, extent[1], extent[2], space)
    ]
    walks = {piece: walk(config, precision, batch, piece) for piece in set(pieces)}
    together = batch * (config.tile_batch if config.use_spatial_tiling and len(pieces) > 1 else 1)
    in_parts = encode_parts_peak if direction == "encode" else decode_parts_peak
    peaks = [one.peak if trained else in_parts(config, precision, together, piece) for piece, one in walks.items()]
    largest = max(peaks)
    result = sum(walks[piece].size for piece in pieces) if len(pieces) > 1 else 0
    return Coding(
        largest + result,
        sum(walks[piece].saved for piece in pieces) + result,
        sum(walks[piece].flops for piece in pieces),
    )


def _time_tiles(config: HunyuanVAEConfig, frames: int, tile: int) -> list[int]:
    """Return the lengths of the tiles of time: one frame more than the tile, for the past."""
    if not config.use_temporal_tiling or frames <= tile:
        return [frames]
    step = int(tile * (1 - config.tile_overlap_factor))
    lengths = [min(tile + 1, frames - start) for start in range(0, frames, step)]
    return [length for index, length in enumerate(lengths) if length > 1 or index == 0]


def _space_tiles(config: HunyuanVAEConfig, height: int, width: int, tile: int) -> list[tuple[int, int]]:
    if not config.use_spatial_tiling or max(height, width) <= tile:
        return [(height, width)]
    step = int(tile * (1 - config.tile_overlap_factor))
    return [
        (min(tile, height - top), min(tile, width - left))
        for top in range(0, height, step)
        for left in range(0, width, step)
    ]
