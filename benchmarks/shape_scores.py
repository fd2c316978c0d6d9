"""How often clips show what their captions say, beside what is wanted and what guessing would give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.shape_measure import Seen
from opensora_cli.data.demo_clips import COLOURS, DIRECTIONS, SHAPES, SPEEDS, DemoClip

WANTED = {"colour": 0.98, "direction": 0.95, "shape": 0.90, "speed": 0.80}
"""Least share of clips that show the right word."""
CHANCE = {
    "colour": 1 / len(COLOURS),
    "direction": 1 / len(DIRECTIONS),
    "shape": 1 / len(SHAPES),
    "speed": 1 / len(SPEEDS),
}
WANTED_DB = 27.0
"""Least PSNR between a given image and the first frame made from it."""


@dataclass(frozen=True)
class Score:
    """One figure, what it should be at least, and what guessing gives (None where that says nothing)."""

    name: str
    value: float
    wanted: float
    chance: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the figure is good enough."""
        return self.value >= self.wanted

    def line(self) -> str:
        """Return the figure as a row of a table."""
        number = "{:>8.1%}" if self.chance is not None else "{:>5.1f} dB"
        value, wanted = number.format(self.value), number.format(self.wanted)
        chance = "" if self.chance is None else f"{self.chance:>8.1%}"
        return f"{'ok  ' if self.reached else 'FAIL'} {self.name:<22}{value}{wanted}{chance}"


HEADER = f"     {'':<22}{'score':>8}{'wanted':>8}{'chance':>8}"


def right_words(clips: Sequence[DemoClip], seen: Sequence[Seen]) -> dict[str, float]:
    """Return the share of clips that show the word of their caption, for each kind of word."""
    return {
        kind: float(np.mean([getattr(one, kind) == getattr(clip, kind) for clip, one in zip(clips, seen, strict=True)]))
        for kind in WANTED
    }


def word_scores(title: str, clips: Sequence[DemoClip], seen: Sequence[Seen]) -> list[Score]:
    """Return the four figures of clips made for these captions."""
    shares = right_words(clips, seen)
    return [Score(f"{title} {kind}", shares[kind], WANTED[kind], CHANCE[kind]) for kind in WANTED]


def psnr_db(picture: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two pictures of one size (dB)."""
    error = np.square(picture.astype(np.float64) - reference).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
