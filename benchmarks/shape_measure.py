"""What a clip of one moving shape shows, read off its pixels: no model, no caption.

The background is the colour of the border. How far each pixel is from it, over the largest such distance in the clip, is
the share of the pixel that the shape covers. From these shares follow colour, outline and path.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opensora_cli.data.demo_clips import COLOURS, DIRECTIONS, RADIUS, SHAPES, SPEEDS, coverage

LEAST_CONTRAST = 40.0
"""Distance in RGB, of 255 a colour, below which nothing is seen."""
AREA = {"circle": math.pi, "square": math.pi, "triangle": 2.0}
"""Of a shape of radius 1."""


@dataclass(frozen=True)
class Seen:
    """What a clip shows, in the words of the captions; "nothing" where no shape stands out."""

    colour: str = "nothing"
    shape: str = "nothing"
    direction: str = "nothing"
    speed: str = "nothing"


def look(frames_THWC: NDArray[np.uint8]) -> Seen:
    """Return what a clip of pictures (T, H, W, 3) shows."""
    frames = frames_THWC.astype(np.float64)
    covered_THW = _coverage(frames)
    if covered_THW is None:
        return Seen()
    path_T2 = _centres(covered_THW)
    way = _way(path_T2)
    return Seen(
        colour=_colour(frames, covered_THW),
        shape=_shape(covered_THW, path_T2),
        direction=_direction(way),
        speed=_speed(way, frames),
    )


def _coverage(frames_THWC: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return each pixel's share of the shape, or None where a frame has no shape."""
    border = [frames_THWC[:, 0], frames_THWC[:, -1], frames_THWC[:, :, 0], frames_THWC[:, :, -1]]
    background_C = np.median(np.concatenate([side.reshape(-1, 3) for side in border]), axis=0)
    distance_THW = np.linalg.norm(frames_THWC - background_C, axis=-1)
    contrast = np.percentile(distance_THW, 99)
    if contrast < LEAST_CONTRAST or distance_THW.max(axis=(1, 2)).min() < contrast / 2:
        return None
    covered_THW = np.clip(distance_THW / contrast, 0, 1)
    covered_THW[covered_THW < 0.15] = 0  # what is left of noise would pull the centre to the middle
    return covered_THW


def _centres(covered_THW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (down, right) of the shape's centre in every frame, pixels."""
    down_HW, right_HW = np.mgrid[: covered_THW.shape[1], : covered_THW.shape[2]]
    area_T = covered_THW.sum(axis=(1, 2))
    return np.stack([(covered_THW * axis).sum(axis=(1, 2)) / area_T for axis in (down_HW, right_HW)], axis=1)


def _way(path_T2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (down, right) from the first to the last frame along the straight line that fits the path best."""
    times = np.arange(len(path_T2))
    return np.polyfit(times, path_T2, 1)[0] * (len(times) - 1)


def _colour(frames_THWC: NDArray[np.float64], covered_THW: NDArray[np.float64]) -> str:
    inside_C = np.median(frames_THWC[covered_THW > 0.8], axis=0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(inside_C - COLOURS[name])))


def _shape(covered_THW: NDArray[np.float64], path_T2: NDArray[np.float64]) -> str:
    """Return the shape that differs least from what is seen when it is drawn with the same area around the same centre."""
    height, width = covered_THW.shape[1:]
    area = float(np.median(covered_THW.sum(axis=(1, 2))))

    def difference(shape: str) -> float:
        radius = math.sqrt(area / AREA[shape])
        lower = radius / 3 if shape == "triangle" else 0.0  # its centre of mass lies below the middle of its height
        drawn = [coverage(shape, height, width, y + 0.5 - lower, x + 0.5, radius) for y, x in path_T2]
        return float(np.square(np.stack(drawn) - covered_THW).sum())

    return min(SHAPES, key=difference)


def _direction(way_2: NDArray[np.float64]) -> str:
    return max(DIRECTIONS, key=lambda name: float(np.dot(way_2, DIRECTIONS[name])))


def _speed(way_2: NDArray[np.float64], frames_THWC: NDArray[np.float64]) -> str:
    side = min(frames_THWC.shape[1:3])
    share = float(np.abs(way_2).max()) / (side * (1 - 2 * RADIUS))
    return min(SPEEDS, key=lambda name: abs(share - SPEEDS[name]))
