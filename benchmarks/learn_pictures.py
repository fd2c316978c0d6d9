"""The pictures of `benchmarks.learn_shapes`: curves, and frames of what was made beside its captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from opensora_cli.files import whole_file

SIZE = (560, 300)
LEFT, TOP, RIGHT, BOTTOM = 56, 40, 16, 40
INK, PALE, LINE = (40, 40, 48), (120, 120, 130), (226, 226, 232)
COLOURS = ((61, 116, 196), (232, 143, 54), (70, 160, 90), (170, 80, 170))
TICKS = 5
TILE = 64
CAPTION = 268


@dataclass(frozen=True)
class Curve:
    """A line of a chart."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return the means of neighbouring values, `width` at a time; the last few may be fewer."""
    return [float(np.mean(values[start : start + width])) for start in range(0, len(values), width)]


def draw_chart(path: Path, title: str, x_name: str, curves: Sequence[Curve], low: float, high: float) -> None:
    """Write a PNG with the curves between the heights `low` and `high`; what lies outside is drawn at the edge."""
    image = Image.new("RGB", SIZE, (255, 255, 255))
    draw = ImageDraw.Draw(image)
    large, small = ImageFont.load_default(15), ImageFont.load_default(12)
    right, bottom = SIZE[0] - RIGHT, SIZE[1] - BOTTOM
    most = max(x for curve in curves for x in curve.xs)
    draw.text((12, 8), title, fill=INK, font=large)
    for tick in range(TICKS + 1):
        share = tick / TICKS
        y, x = bottom - share * (bottom - TOP), LEFT + share * (right - LEFT)
        draw.line((LEFT, y, right, y), fill=LINE)
        draw.text((LEFT - 8, y), f"{low + share * (high - low):.3g}", fill=PALE, font=small, anchor="rm")
        draw.text((x, bottom + 6), f"{share * most:.0f}", fill=PALE, font=small, anchor="mt")
    draw.text(((LEFT + right) / 2, SIZE[1] - 6), x_name, fill=PALE, font=small, anchor="mb")
    x_name_end = right
    for curve, colour in reversed(list(zip(curves, COLOURS, strict=False))):
        points = [
            (LEFT + x / most * (right - LEFT), bottom - (np.clip(y, low, high) - low) / (high - low) * (bottom - TOP))
            for x, y in zip(curve.xs, curve.ys, strict=True)
        ]
        draw.line(points, fill=colour, width=2, joint="curve")
        draw.text((x_name_end, 18), curve.name, fill=colour, font=small, anchor="rm")
        x_name_end -= draw.textlength(curve.name, font=small) + 14
    _save(image, path)


def draw_grid(path: Path, rows: Sequence[tuple[str, NDArray[np.uint8]]], frames: Sequence[int]) -> None:
    """Write a PNG with a row for each (caption, clip (T, H, W, 3)): the caption, then the frames of these numbers."""
    image = Image.new("RGB", (CAPTION + len(frames) * (TILE + 4) + 4, 4 + len(rows) * (TILE + 4)), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    for number, (caption, clip_THWC) in enumerate(rows):
        top = 4 + number * (TILE + 4)
        draw.text((8, top + TILE / 2), caption, fill=INK, font=font, anchor="lm")
        for column, frame in enumerate(frames):
            tile = Image.fromarray(clip_THWC[frame]).resize((TILE, TILE), Image.Resampling.NEAREST)
            image.paste(tile, (CAPTION + column * (TILE + 4), top))
    _save(image, path)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as aside:
        image.quantize(128).save(aside, format="PNG", optimize=True)
