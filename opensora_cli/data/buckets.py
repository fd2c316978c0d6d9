"""Buckets: every clip goes to one (resolution, frames, aspect ratio), so that the clips of a batch have one shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from opensora_cli.data.aspect import Size, aspect_table, closest_ratio, ratio_borders, ratio_value, token_count
from opensora_cli.data.draws import Floats, Ints, Purpose, Sizes, uniforms
from opensora_cli.data.rules import RULES_2_0, DataRules

Probability = float | tuple[float, float]
BucketTable = Mapping[str, Mapping[int, tuple[Probability, int]]]
Draw = Callable[[Ints, int], Floats]
"""(rows, slot) -> a number in [0, 1) for each row. A slot is one decision of the table; it is asked for at most once a row."""

ENOUGH_PIXELS = 0.8
"""Share of a resolution's pixels that a clip must have: enlarging a little is fine, more is not."""
BLOCK_ROWS = 1 << 16
"""Rows that are assigned at once: what is worked out for them stays in the processor's cache, and memory is bounded."""


class BucketKey(NamedTuple):
    """Where a clip goes: resolution name, frames, aspect ratio name (width:height; in Open-Sora 1.2 height / width)."""

    resolution: str
    frames: int
    aspect: str

    def __str__(self) -> str:
        return f"{self.resolution} {self.frames} frames {self.aspect}"


class Shape(NamedTuple):
    """What a bucket makes of its clips: frames, height and width in pixels, clips of a batch."""

    frames: int
    height: int
    width: int
    batch_size: int


@dataclass(frozen=True)
class Assignment:
    """The bucket of each row (index into `Buckets.keys`, -1 for none), and why the rest fit nowhere."""

    bucket: NDArray[np.int32]
    too_small: int
    """Rows with too few pixels for every resolution."""
    too_short: int
    """Rows large enough, with too few frames for every length."""
    not_drawn: int
    """Rows that fit somewhere and were left out by their keep probabilities."""


@dataclass(frozen=True)
class Level:
    """One resolution of the table: its lengths, longest first, with (keep, skip) probabilities."""

    resolution: str
    pixels: int
    lengths: tuple[int, ...]
    keep: tuple[float, ...]
    skip: tuple[float, ...]
    any_size: bool = False
    """Whether clips are taken that are smaller, or too short for their interval."""

    @property
    def least_pixels(self) -> float:
        """The pixels that a clip must have."""
        return 0 if self.any_size else ENOUGH_PIXELS * self.pixels

    @cached_property
    def moving(self) -> Ints:
        """The lengths of clips, shortest first; length 1 is for pictures alone."""
        return np.array([length for length in self.lengths[::-1] if length > 1], dtype=np.int64)

    @cached_property
    def certain(self) -> Ints:
        """For every place the place itself where it is kept for certain, else -1; one more -1 for fitting nowhere."""
        return np.array([place if chance >= 1 else -1 for place, chance in enumerate(self.keep)] + [-1])

    def fits(self, used: Sizes) -> NDArray[np.bool_]:
        """Return whether there is a length for clips of so many frames."""
        fitting: NDArray[np.bool_] = self._longest_of(used) < len(self.lengths)
        fitting |= (used == 1) & (self.lengths[-1] == 1)
        return fitting

    def pick(self, used: Sizes, draw: Callable[[Ints, int], Floats]) -> Ints:
        """Return the place of each clip's length, -1 where it is not taken; `draw` knows the clips by their place in `used`."""
        candidate = self._longest_of(used)
        for place, chance in enumerate(self.skip):
            if chance > 0:
                at = np.flatnonzero(candidate == place)
                if chance < 1:
                    at = at[self._skips(draw(at, 2 * place + 1), chance)]
                shorter = place + 1
                candidate[at] = shorter if shorter < len(self.lengths) - (self.lengths[-1] == 1) else len(self.lengths)
        picked = self.certain[candidate]
        for place, chance in enumerate(self.keep):
            if chance < 1:
                at = np.flatnonzero(candidate == place)
                picked[at[self._keeps(draw(at, 2 * place), chance)]] = place
        if self.lengths[-1] == 1:
            # A picture asks for its own probability, strictly: 0 never, 1 always, since draws are below 1.
            place = len(self.lengths) - 1
            at = np.flatnonzero(used == 1)
            picked[at if self.keep[place] >= 1 else at[draw(at, 2 * place) < self.keep[place]]] = place
        return picked

    def _skips(self, drawn: Floats, chance: float) -> NDArray[np.bool_]:
        return drawn <= chance

    def _keeps(self, drawn: Floats, chance: float) -> NDArray[np.bool_]:
        return drawn <= chance

    def _longest_of(self, used: Sizes) -> Ints:
        """Return for each clip the place of the longest length that fits, their number where none does."""
        places = len(self.moving) - np.searchsorted(self.moving, used, side="right")
        return np.where(places < len(self.moving), places, len(self.lengths))


class StrictLevel(Level):
    """The same by Open-Sora 1.2's rules: low draws keep a clip and high ones skip a length, the chance itself is too much."""

    def _skips(self, drawn: Floats, chance: float) -> NDArray[np.bool_]:
        return drawn > 1 - chance

    def _keeps(self, drawn: Floats, chance: float) -> NDArray[np.bool_]:
        return drawn < chance


class NearestRatio:
    """The ratio of a resolution's table that is nearest to a clip's, for many clips at once; `value` is a name's number."""

    def __init__(self, table: dict[str, Size], value: Callable[[str], float] = ratio_value) -> None:
        borders, names = ratio_borders(table, value)
        self._table = table
        self._value = value
        self._names = list(table)
        self._borders = np.array(borders)
        self._nearest = np.array([self._names.index(name) for name in names], dtype=np.int64)
        # On a border two ratios are equally near, up to rounding: there the rule itself decides.
        self._near_low = np.array([-np.inf, *(border * (1 + 1e-9) for border in borders)])
        self._near_high = np.array([*(border * (1 - 1e-9) for border in borders), np.inf])

    def __len__(self) -> int:
        return len(self._names)

    def __call__(self, ratios: Floats) -> Ints:
        """Return the place in the table of the ratio nearest to each height / width."""
        places = np.searchsorted(self._borders, ratios, side="left")
        nearest = self._nearest[places]
        for at in np.flatnonzero((ratios <= self._near_low[places]) | (ratios >= self._near_high[places])):
            nearest[at] = self._names.index(closest_ratio(float(ratios[at]), 1.0, self._table, self._value))
        return nearest


class Buckets:
    """A bucket table in the order in which it is tried: most pixels first, then most frames.

    `compression` is the pixels per token and axis, `frame_compression` the frames per token.
    Equal pixel counts keep the table's order. Source of the rules: Open-Sora 2.0 and 1.2, datasets/bucket.py.
    """

    def __init__(
        self,
        table: BucketTable,
        compression: int = 16,
        frame_compression: int = 4,
        rules: DataRules = RULES_2_0,
    ) -> None:
        self.compression = compression
        self.frame_compression = frame_compression
        self.rules = rules
        order = sorted(table, key=rules.pixel_count, reverse=True)
        self.levels = tuple(_level(name, table[name], rules) for name in order)
        self._ratios = [NearestRatio(self.sizes(level.resolution), rules.ratio_value) for level in self.levels]
        self._batch_size = {(name, frames): bucket[1] for name, row in table.items() for frames, bucket in row.items()}

    @cached_property
    def keys(self) -> tuple[BucketKey, ...]:
        """Every bucket there is, in order of trial; ratios in the order of their table."""
        return tuple(
            BucketKey(level.resolution, frames, aspect)
            for level in self.levels
            for frames in level.lengths
            for aspect in self.sizes(level.resolution)
        )

    def sizes(self, resolution: str) -> dict[str, Size]:
        """Return ratio name -> (height, width) of a resolution, in pixels."""
        return self.rules.aspect_table(resolution, self.compression)

    def shape(self, key: BucketKey) -> Shape:
        """Return the shape of a bucket's clips and its batch size."""
        height, width = self.sizes(key.resolution)[key.aspect]
        return Shape(key.frames, height, width, self._batch_size[key.resolution, key.frames])

    def tokens(self, key: BucketKey) -> int:
        """Return the tokens of a batch of the bucket: what a step over it costs.

        4k+1 frames of a causal autoencoder are k+1 in time, 4k of another one k.
        """
        shape = self.shape(key)
        per_frame = token_count((shape.height, shape.width), self.compression)
        return shape.batch_size * -(-shape.frames // self.frame_compression) * per_frame

    def assign(
        self, frames: Sizes, heights: Sizes, widths: Sizes, fps: Floats, fps_max: float | None, *, seed: int, epoch: int
    ) -> Assignment:
        """Return the bucket of every row; its draws depend on (seed, epoch, row number) and nothing else."""
        return self.assign_by(frames, heights, widths, fps, fps_max, partial(uniforms, Purpose.BUCKET, seed, epoch))

    def assign_by(
        self, frames: Sizes, heights: Sizes, widths: Sizes, fps: Floats, fps_max: float | None, draw: Draw
    ) -> Assignment:
        """Return the bucket of every row, with draws from `draw`.

        A level takes a clip of at least 0.8 of its pixels and, after the frame-rate limit, at least that many frames;
        length 1 takes what has exactly one frame.
        A pair of probabilities is (chance to take the bucket, chance to skip to the next shorter length); in Open-Sora 1.2
        the second is the chance not to.
        """
        bucket = np.empty(len(frames), dtype=np.int32)
        totals = np.zeros(3, dtype=np.int64)
        for first in range(0, len(frames), BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            used = self.rules.usable_frames(frames[part], fps[part], fps_max)
            bucket[part], left_out = self._assign_block(first, frames[part], used, heights[part], widths[part], draw)
            totals += left_out
        too_small, too_short, not_drawn = totals.tolist()
        return Assignment(bucket, too_small, too_short, not_drawn)

    def _assign_block(
        self, first_row: int, frames: Sizes, used: Ints, heights: Sizes, widths: Sizes, draw: Draw
    ) -> tuple[Ints, tuple[int, int, int]]:
        """Return the buckets of some rows, `used` of their frames; and how many are too small, too short, not drawn."""
        pixels = heights.astype(np.int64) * widths
        ratios = heights / widths
        chosen = np.full(len(used), -1, dtype=np.int64)
        waiting = np.arange(len(used))
        first_bucket = first_slot = 0
        for level, nearest in zip(self.levels, self._ratios, strict=True):
            rows = waiting[pixels[waiting] >= level.least_pixels]
            length = level.pick(
                (frames if level.any_size else used)[rows], partial(_draw, draw, first_slot, first_row + rows)
            )
            rows, length = rows[length >= 0], length[length >= 0]
            chosen[rows] = first_bucket + length * len(nearest) + nearest(ratios[rows])
            waiting = waiting[chosen[waiting] < 0]
            first_bucket += len(level.lengths) * len(nearest)
            first_slot += 2 * len(level.lengths)
        return chosen, self._left_out(frames[waiting], used[waiting], pixels[waiting])

    def _left_out(self, frames: Sizes, used: Ints, pixels: Ints) -> tuple[int, int, int]:
        """Return how many of these clips, which no bucket took, are too small, too short, or were not drawn."""
        large = np.zeros(len(used), dtype=bool)
        fits = np.zeros(len(used), dtype=bool)
        for level in self.levels:
            enough = pixels >= level.least_pixels
            large |= enough
            fits |= enough & level.fits(frames if level.any_size else used)
        return int(np.sum(~large)), int(np.sum(large & ~fits)), int(np.sum(fits))


def bucket_to_shapes(table: BucketTable, compression: int = 16, batch_size: int | None = None) -> list[list[int]]:
    """Return [batch, 3, frames, height, width] of every bucket, in the table's own order; `batch_size` overrides."""
    return [
        [batch_size or own, 3, frames, *size]
        for resolution, lengths in table.items()
        for frames, (_, own) in lengths.items()
        for size in aspect_table(resolution, compression).values()
    ]


def _level(resolution: str, lengths: Mapping[int, tuple[Probability, int]], rules: DataRules) -> Level:
    order = tuple(sorted(lengths, reverse=True))
    if not order:
        raise ValueError(f"buckets.{resolution}: no length; write frames = [keep probability, batch size]")
    chances = [lengths[frames][0] for frames in order]
    keep = tuple(chance[0] if isinstance(chance, tuple) else chance for chance in chances)
    skip = tuple(chance[1] if isinstance(chance, tuple) else float(rules.strict) for chance in chances)
    kind, skip = (StrictLevel, tuple(1 - chance for chance in skip)) if rules.strict else (Level, skip)
    return kind(resolution, rules.pixel_count(resolution), order, keep, skip, rules.any_size(resolution))


def _draw(draw: Draw, first_slot: int, rows: Ints, at: Ints, slot: int) -> Floats:
    return draw(rows[at], first_slot + slot)
