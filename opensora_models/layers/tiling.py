"""Working on overlapping tiles, so that memory depends on the tile and not on the clip.

A tile starts every `stride` in its input; of its output the first `keep` rows are kept, after its first `blend` rows were
mixed with what the tile before has there. The numbers follow upstream's, because published results depend on them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

Coder = Callable[[Tensor], Tensor]
Direction = Literal["encode", "decode"]
TIME, HEIGHT, WIDTH = 2, 3, 4


@dataclass(frozen=True)
class Tiling:
    """One direction's tiling of one kind of axis: encoding or decoding, space or time."""

    tile: int  # input length of a tile
    stride: int  # input between the starts of two tiles
    blend: int  # output mixed with the tile before
    keep: int  # output kept of a tile
    batch: int = 1  # tiles of a row that are coded together

    @classmethod
    def plan(cls, tile_in: int, tile_out: int, overlap: float, batch: int = 1) -> "Tiling":
        """Return the tiling for tiles of `tile_in` that become `tile_out`, overlapping by a share of `overlap`."""
        blend = int(tile_out * overlap)
        return cls(tile_in, int(tile_in * (1 - overlap)), blend, tile_out - blend, batch)


@dataclass(frozen=True)
class TileSizes:
    """How large tiles are before encoding, pixels and frames; None: that kind of axis stays whole."""

    side: int | None
    frames: int | None


TileChoice = Callable[[Direction, Tensor], TileSizes]
"""The tiles for a clip to encode or latents to decode, where a configuration leaves them open."""


def whole_strides(size: int, ratio: int, overlap: float) -> bool:
    """Whether tiles of `size` start on latents, each of which covers `ratio`: else pixels and latents would not agree."""
    stride = int(size * (1 - overlap))
    return size % ratio == 0 and stride >= 1 and stride == int(size // ratio * (1 - overlap)) * ratio


def tile_plans(
    direction: Direction, sizes: TileSizes, *, ratios: tuple[int, int], overlap: float, batch: int
) -> tuple[Tiling | None, Tiling | None]:
    """Return the tilings of space and time; `ratios` are the compression of sides and of frames."""
    plans: list[Tiling | None] = []
    for size, ratio, together in ((sizes.side, ratios[0], batch), (sizes.frames, ratios[1], 1)):
        if size is None:
            plans.append(None)
            continue
        tile_in, tile_out = (size, size // ratio) if direction == "encode" else (size // ratio, size)
        plans.append(Tiling.plan(tile_in, tile_out, overlap, together))
    return plans[0], plans[1]


def tiled(
    x_BCTHW: Tensor, space: Tiling | None, time: Tiling | None, code: Coder, *, past: int = 0, shortest: int = 1
) -> Tensor:
    """Apply `code` whole or, where there is a tiling and the input is larger than its tile, in tiles; see `tile_time`."""

    def in_space(x: Tensor) -> Tensor:
        large = space is not None and max(x.shape[HEIGHT], x.shape[WIDTH]) > space.tile
        return tile_space(x, space, code) if large else code(x)

    if time is not None and x_BCTHW.shape[TIME] > time.tile:
        return tile_time(x_BCTHW, time, in_space, past=past, shortest=shortest)
    return in_space(x_BCTHW)


def tile_space(x_BCTHW: Tensor, tiling: Tiling, code: Coder) -> Tensor:
    """Apply `code` to tiles of height and width. A tile is mixed with the finished one above, then with the one before it."""
    above: list[Tensor] = []
    rows = []
    for top in range(0, x_BCTHW.shape[HEIGHT], tiling.stride):
        row: list[Tensor] = []
        for tile in _code_row(x_BCTHW[..., top : top + tiling.tile, :], tiling, code):
            if above:
                tile = mix(above[len(row)], tile, tiling.blend, HEIGHT)
            if row:
                tile = mix(row[-1], tile, tiling.blend, WIDTH)
            row.append(tile)
        rows.append(torch.cat([tile[..., : tiling.keep, : tiling.keep] for tile in row], WIDTH))
        above = row
    return torch.cat(rows, HEIGHT)


def _code_row(x_BCTHW: Tensor, tiling: Tiling, code: Coder) -> Iterator[Tensor]:
    """Yield the coded tiles of a row, `batch` of equal width at a time."""
    lefts = range(0, x_BCTHW.shape[WIDTH], tiling.stride)
    tiles = [x_BCTHW[..., left : left + tiling.tile] for left in lefts]
    for _, alike in groupby(tiles, key=lambda tile: tile.shape[WIDTH]):
        group = list(alike)
        for first in range(0, len(group), tiling.batch):
            some = group[first : first + tiling.batch]
            yield from code(torch.cat(some) if len(some) > 1 else some[0]).chunk(len(some))


def tile_time(x_BCTHW: Tensor, tiling: Tiling, code: Coder, *, past: int = 0, shortest: int = 1) -> Tensor:
    """Apply `code` to tiles of time, each `past` frames longer than `tiling.tile`.

    `past` is 1 for a causal autoencoder: the extra frame stands for what was before; the first tile keeps what it becomes,
    the later ones drop it. A last tile of fewer than `shortest` frames, which `code` would take for a picture, is not coded:
    what it covers is the end of the tile before or, where tiles do not overlap, is coded together with a frame before it.
    """
    parts: list[Tensor] = []
    before: Tensor | None = None
    frames = x_BCTHW.shape[TIME]
    for start in range(0, frames, tiling.stride):
        tile = x_BCTHW[:, :, start : start + tiling.tile + past]
        length = tile.shape[TIME]
        if before is None:
            before = code(tile)
            parts.append(before[:, :, : tiling.keep + past])
        elif length < shortest and tiling.stride < tiling.tile:
            parts[-1] = before
        elif length < shortest:
            longer = code(x_BCTHW[:, :, start - (shortest - length) :])
            parts.append(longer[:, :, longer.shape[TIME] * (shortest - length) // shortest :])
        elif length > past:  # a last tile of nothing but the past would be dropped whole
            before = mix(before, code(tile)[:, :, past:], tiling.blend, TIME)
            parts.append(before[:, :, : tiling.keep])
    return torch.cat(parts, TIME)


def mix(before: Tensor, tile: Tensor, extent: int, axis: int) -> Tensor:
    """Return `tile` with its first `extent` entries faded in over the last ones of `before`.

    The weight of entry k is k / extent, so the first one is wholly the old tile's.
    """
    extent = min(before.shape[axis], tile.shape[axis], extent)
    if extent == 0:
        return tile
    ramp = torch.arange(extent, device=tile.device, dtype=torch.float32) / extent
    weight = ramp.to(tile.dtype).view([-1 if dim == axis else 1 for dim in range(tile.dim())])
    old = before.narrow(axis, before.shape[axis] - extent, extent)
    new, rest = tile.split([extent, tile.shape[axis] - extent], axis)
    return torch.cat([old * (1 - weight) + new * weight, rest], axis)
