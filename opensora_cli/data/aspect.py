"""Sizes of pictures by resolution and aspect ratio, in multiples of the model's spatial compression.

A resolution is a pixel budget: `256px` is 256*256 pixels, `480p` is a 16:9 picture of 480 lines. `_max` behind it keeps
only the ratio with most pixels, `_ar9:16` only that ratio. Ratios are named width:height, sizes are (height, width).
`compression` is the pixels per token and axis: autoencoder stride times patch size, 16 in Open-Sora 2.0.
"""

import math
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from schemas.errors import OsoraError

RATIOS = ("2.39:1", "2:1", "16:9", "1.85:1", "9:16", "5:8", "3:2", "4:3", "1:1")
"""Base ratios. Their swapped names follow; 9:16 swapped is 16:9 again, takes that entry's place and replaces its size."""

_NAME = re.compile(r"(?P<lines>[1-9]\d*)(?P<unit>px|p)(?:_(?P<only>max|ar(?P<ratio>[\d.]+:[\d.]+)))?")

Size = tuple[int, int]


def ratio_value(name: str) -> float:
    """Return height / width of a ratio named width:height. Raises OsoraError for anything else."""
    width, _, height = name.partition(":")
    try:
        value = float(height) / float(width)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise OsoraError(
            f"aspect ratio {name!r}: width:height is expected, two positive numbers, for example 16:9 or 2.39:1."
        )
    return value


def pixel_count(resolution: str) -> int:
    """Return the pixel budget of a resolution's name."""
    match = _parse(resolution)
    lines = int(match["lines"])
    return lines * lines if match["unit"] == "px" else int(lines * lines / 9 * 16)


@lru_cache(maxsize=256)
def _table(resolution: str, compression: int, training: bool) -> tuple[tuple[str, Size], ...]:
    match = _parse(resolution)
    if compression < 1:
        raise ValueError(f"compression = {compression}: pixels per token and axis are at least 1")
    table = _all_ratios(pixel_count(resolution), compression, training)
    if not table:
        raise OsoraError(
            f"resolution {resolution!r} is smaller than one token of {compression} pixels: take a larger one."
        )
    if match["only"] == "max":
        best = max(table, key=lambda name: table[name][0] * table[name][1])
        return ((best, table[best]),)
    if match["ratio"]:
        if match["ratio"] not in table:
            raise OsoraError(
                f"resolution {resolution!r}: no size for {match['ratio']} at compression {compression}; "
                f"there are {', '.join(table)}."
            )
        return ((match["ratio"], table[match["ratio"]]),)
    return tuple(table.items())


def aspect_table(resolution: str, compression: int = 16, training: bool = True) -> dict[str, Size]:
    """Return ratio name -> (height, width) in pixels.

    In training a size is moved by one step where that brings it nearer to the budget, and of ratios that end at the same
    size only the first stays. The order counts: the first of equals is taken by `closest_ratio` and by `_max`.
    Raises OsoraError for a name that is no resolution. Source: Open-Sora 2.0, datasets/aspect.py.
    """
    return dict(_table(resolution, compression, training))


def closest_ratio(
    height: float, width: float, table: dict[str, Size], value: Callable[[str], float] = ratio_value
) -> str:
    """Return the name in `table` whose height / width, its `value`, is nearest; the first one on a tie."""
    return min(table, key=lambda name: abs(height / width - value(name)))


def get_image_size(resolution: str, ratio: str, compression: int = 16, training: bool = False) -> Size:
    """Return (height, width) of a resolution at a ratio of its table. Raises OsoraError naming the ratios there are."""
    table = aspect_table(resolution, compression, training)
    if ratio not in table:
        raise OsoraError(f"aspect ratio {ratio!r}: {resolution} at compression {compression} has {', '.join(table)}.")
    return table[ratio]


def token_count(size: Size, compression: int = 16) -> int:
    """Return the tokens of one frame of (height, width) pixels."""
    return size[0] * size[1] // compression**2


def _parse(resolution: str) -> re.Match[str]:
    match = _NAME.fullmatch(resolution)
    if match is None:
        raise OsoraError(
            f"resolution {resolution!r}: a pixel budget such as 256px, 768px, 480p or 1080p is expected, "
            "with _max or _ar16:9 behind it if only one aspect ratio is wanted."
        )
    return match


def _all_ratios(budget: int, step: int, training: bool) -> dict[str, Size]:
    across: dict[str, Size] = {}
    swapped: dict[str, Size] = {}
    for name in RATIOS:
        height, width = _size_near(budget, 1 / ratio_value(name), step, training)
        if not height or not width or (training and (height, width) in across.values()):
            continue
        across[name] = height, width
        swapped[":".join(reversed(name.split(":")))] = width, height
    return across | swapped


def _size_near(budget: int, width_per_height: float, step: int, training: bool) -> Size:
    width = int(math.sqrt(budget * width_per_height) // step) * step
    height = int(budget / width // step) * step if width else 0
    if not training:
        return height, width
    neighbours = [(height - step, width), (height + step, width), (height, width - step), (height, width + step)]
    best = height, width
    for one in neighbours:
        if abs(one[0] * one[1] - budget) < abs(best[0] * best[1] - budget):
            best = one
    return best


def ratio_borders(table: dict[str, Size], value: Callable[[str], float] = ratio_value) -> tuple[list[float], list[str]]:
    """Return sorted borders between neighbouring ratios, and the names in between: `closest_ratio` for many at once.

    Value v (height / width) belongs to name i, where i is the number of borders below v.
    """
    named: dict[float, str] = {}
    for name in table:
        named.setdefault(value(name), name)
    values = sorted(named)
    return [(low + high) / 2 for low, high in pairwise(values)], [named[value] for value in values]
