"""Sinusoidal position tables, computed from the shape of the input; none of them is a weight.

The tables that v1.0 and PixArt store and those that later versions compute are one formula: a token's coordinate is
`index / scale * base_size / count`. All are fp32, and computed on the device that they are for, without waiting for it.
"""

import torch
from torch import Tensor

MAX_PERIOD = 10_000.0


def coordinates(
    count: int, scale: float | Tensor = 1.0, base_size: int | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Return the places of `count` tokens along an axis, in fp64: stretched to `base_size`, and divided by `scale`."""
    places_N = torch.arange(count, dtype=torch.float64, device=device) / scale
    return places_N if base_size is None else places_N * (base_size / count)


def sincos_1d(dim: int, places_N: Tensor) -> Tensor:
    """Return the table (N, dim) of some places: sines, then cosines (Attention Is All You Need, section 3.5)."""
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device=places_N.device)
    angles_NF = places_N.double()[:, None] / MAX_PERIOD ** (steps / dim)
    return torch.cat([angles_NF.sin(), angles_NF.cos()], -1).float()


def sincos_2d(
    dim: int,
    rows: int,
    columns: int,
    scale: float | Tensor = 1.0,
    base_size: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the table (rows * columns, dim) of a picture's tokens, row by row; `dim` is a multiple of 4.

    The first half of the features is the column's table, the second the row's (MAE's order, which DiT has taken over).
    """
    column_CF = sincos_1d(dim // 2, coordinates(columns, scale, base_size, device))
    row_RF = sincos_1d(dim // 2, coordinates(rows, scale, base_size, device))
    halves = [column_CF[None].expand(rows, -1, -1), row_RF[:, None].expand(-1, columns, -1)]
    return torch.cat(halves, -1).flatten(0, 1)


def resolution_table(
    dim: int, rows: int, columns: int, height_B: Tensor, width_B: Tensor, input_sq_size: int
) -> Tensor:
    """Return the table (rows * columns, dim) of v1.1 and v1.2, for the first clip's size in pixels.

    The side of a square of as many tokens is stretched over `input_sq_size` pixels.
    """
    scale = (height_B[0] * width_B[0]).double().sqrt() / input_sq_size
    return sincos_2d(dim, rows, columns, scale, round((rows * columns) ** 0.5), height_B.device)
