"""Working on overlapping tiles, so that memory depends on the tile and not on the clip.

A tile starts every `stride` in its input; of its output the first `keep` rows are kept, after its first `blend` rows were
mixed with what the tile before has there. The numbers follow upstream's, because published results depend on them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Coder = Callable[[Tensor], Tensor]
TIME, HEIGHT, WIDTH = 2, 3, 4


@dataclass(frozen=True)
class Tiling:
    """One direction's tiling of one kind of axis: encoding or decoding, space or time."""

    tile: int  # input length of a tile
    stride: int  # input between the starts of two tiles
    blend: int  # output mixed with the tile before
    keep: int  # output kept of a tile

    @classmethod
    def plan(cls, tile_in: int, tile_out: int, overlap: float) -> "Tiling":
        """Return the tiling for tiles of `tile_in` that become `tile_out`, overlapping by a share of `overlap`."""
        blend = int(tile_out * overlap)
        return cls(tile_in, int(tile_in * (1 - overlap)), blend, tile_out - blend)


def tile_space(x_BCTHW: Tensor, tiling: Tiling, code: Coder) -> Tensor:
    """Apply `code` to tiles of height and width. A tile is mixed with the finished one above, then with the one before it."""
    above: list[Tensor] = []
    rows = []
    for top in range(0, x_BCTHW.shape[HEIGHT], tiling.stride):
        row: list[Tensor] = []
        for left in range(0, x_BCTHW.shape[WIDTH], tiling.stride):
            tile = code(x_BCTHW[..., top : top + tiling.tile, left : left + tiling.tile])
            if above:
                tile = mix(above[len(row)], tile, tiling.blend, HEIGHT)
            if row:
                tile = mix(row[-1], tile, tiling.blend, WIDTH)
            row.append(tile)
        rows.append(torch.cat([tile[..., : tiling.keep, : tiling.keep] for tile in row], WIDTH))
        above = row
    return torch.cat(rows, HEIGHT)


def tile_time(x_BCTHW: Tensor, tiling: Tiling, code: Coder) -> Tensor:
    """Apply `code` to tiles of time, each one frame longer than `tiling.tile`.

    The extra frame stands for the past: the first tile keeps what it becomes, the later ones drop it.
    """
    parts: list[Tensor] = []
    before: Tensor | None = None
    for start in range(0, x_BCTHW.shape[TIME], tiling.stride):
        frames = x_BCTHW[:, :, start : start + tiling.tile + 1]
        if before is None:
            before = code(frames)
            parts.append(before[:, :, : tiling.keep + 1])
        elif frames.shape[TIME] > 1:  # a last tile of one frame would be dropped whole
            before = mix(before, code(frames)[:, :, 1:], tiling.blend, TIME)
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
