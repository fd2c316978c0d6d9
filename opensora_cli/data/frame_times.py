"""Clips with variable frame rate: which of their pictures stand at even steps in time."""

from bisect import bisect_right
from collections.abc import Sequence

UNEVEN = 1.0
"""Frame durations by which a picture must be off its place for a clip to count as variable: a dropped frame is less."""


def is_even(times: Sequence[int]) -> bool:
    """Return whether ascending timestamps lie within `UNEVEN` steps of evenly spaced ones."""
    if len(times) < 3:
        return True
    step = (times[-1] - times[0]) / (len(times) - 1)
    return all(abs(time - times[0] - place * step) <= UNEVEN * step for place, time in enumerate(times))


def even_places(times: Sequence[int], end: int, indices: Sequence[int]) -> list[int]:
    """Return which picture is on the screen at each index times the average duration of a picture.

    `times` are the timestamps of all pictures in order of display, `end` is when the last one ends. A clip of constant rate
    keeps its indices, and so do indices behind the last picture.
    """
    if is_even(times):
        return list(indices)
    duration = (max(end, times[-1]) - times[0]) / len(times)
    # Half a tick more: a time that rounding put just before its picture would else show the one before.
    shown = [bisect_right(times, times[0] + index * duration + 0.5) - 1 for index in indices]
    return [index if index >= len(times) else place for index, place in zip(indices, shown, strict=True)]
