"""Buckets: every clip goes to one (resolution, frames, aspect ratio), so that the clips of a batch have one shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from opensora_cli.data.aspect import aspect_table, closest_ratio, pixel_count, ratio_borders, token_count
from opensora_cli.data.draws import Floats, Ints, Purpose, Sizes, uniforms
from opensora_cli.data.frames import sampling_intervals

Probability = float | tuple[float, float]
BucketTable = Mapping[str, Mapping[int, tuple[Probability, int]]]
Draw = Callable[[Ints, int], Floats]
"""(rows, slot) -> a number in [0, 1) for each row. A slot is one decision of the table; it is asked for at most once a row."""

ENOUGH_PIXELS = 0.8
"""Share of a resolution's pixels that a clip must have: enlarging a little is fine, more is not."""
BLOCK_ROWS = 1 << 16
"""Rows that are assigned at once: what is worked out for them stays in the processor's cache, and memory is bounded."""


class BucketKey(NamedTuple):
    """Where a clip goes: resolution name, frames, aspect ratio name (width:height)."""

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


class Buckets:
    """A bucket table in the order in which it is tried: most pixels first, then most frames.

    `compression` is the pixels per token and axis, `frame_compression` the frames per token.
    Equal pixel counts keep the table's order. Source of the rules: Open-Sora 2.0, datasets/bucket.py.
    """

    def __init__(self, table: BucketTable, compression: int = 16, frame_compression: int = 4) -> None:
        self.compression = compression
        self.frame_compression = frame_compression
        self.levels = tuple(_level(name, table[name]) for name in sorted(table, key=pixel_count, reverse=True))
        self._batch_size = {(name, frames): bucket[1] for name, row in table.items() for frames, bucket in row.items()}

    @cached_property
    def keys(self) -> tuple[BucketKey, ...]:
        """Every bucket there is, in order of trial; ratios in the order of their table."""
        return tuple(
            BucketKey(level.resolution, frames, aspect)
            for level in self.levels
            for frames in level.lengths
            for aspect in aspect_table(level.resolution, self.compression)
        )

    def shape(self, key: BucketKey) -> Shape:
        """Return the shape of a bucket's clips and its batch size."""
        height, width = aspect_table(key.resolution, self.compression)[key.aspect]
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
        A pair of probabilities is (chance to take the bucket, chance to skip to the next shorter length).
        """
        bucket = np.empty(len(frames), dtype=np.int32)
        totals = np.zeros(3, dtype=np.int64)
        for first in range(0, len(frames), BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            used = frames[part] // sampling_intervals(fps[part], fps_max)
            bucket[part], left_out = self._assign_block(first, used, heights[part], widths[part], draw)
            totals += left_out
        too_small, too_short, not_drawn = totals.tolist()
        return Assignment(bucket, too_small, too_short, not_drawn)

    def _assign_block(
        self, first_row: int, used: Ints, heights: Sizes, widths: Sizes, draw: Draw
    ) -> tuple[Ints, tuple[int, int, int]]:
        """Return the buckets of some rows, of `used` frames each; and how many are too small, too short, not drawn."""
        pixels = heights.astype(np.int64) * widths
        ratios = heights / widths
        chosen = np.full(len(used), -1, dtype=np.int64)
        large = np.zeros(len(used), dtype=bool)
        fits = np.zeros(len(used), dtype=bool)
        first_bucket = slot = 0
        for level in self.levels:
            rows = np.flatnonzero((chosen < 0) & (pixels >= ENOUGH_PIXELS * level.pixels))
            large[rows] = True
            fits[rows] |= _fits(level, used[rows])
            length = _pick_lengths(level, used, rows, partial(_draw_slot, draw, slot, first_row))
            taken = rows[length >= 0]
            nearest = _nearest_ratios(level.resolution, self.compression, ratios[taken])
            ratio_count = len(aspect_table(level.resolution, self.compression))
            chosen[taken] = first_bucket + length[length >= 0] * ratio_count + nearest
            first_bucket += len(level.lengths) * ratio_count
            slot += 2 * len(level.lengths)
        counts = int(np.sum(~large)), int(np.sum(large & ~fits)), int(np.sum(fits & (chosen < 0)))
        return chosen, counts


def bucket_to_shapes(table: BucketTable, compression: int = 16, batch_size: int | None = None) -> list[list[int]]:
    """Return [batch, 3, frames, height, width] of every bucket, in the table's own order; `batch_size` overrides."""
    return [
        [batch_size or own, 3, frames, *size]
        for resolution, lengths in table.items()
        for frames, (_, own) in lengths.items()
        for size in aspect_table(resolution, compression).values()
    ]


def _level(resolution: str, lengths: Mapping[int, tuple[Probability, int]]) -> Level:
    order = tuple(sorted(lengths, reverse=True))
    if not order:
        raise ValueError(f"buckets.{resolution}: no length; write frames = [keep probability, batch size]")
    chances = [lengths[frames][0] for frames in order]
    keep = tuple(chance[0] if isinstance(chance, tuple) else chance for chance in chances)
    skip = tuple(chance[1] if isinstance(chance, tuple) else 0.0 for chance in chances)
    return Level(resolution, pixel_count(resolution), order, keep, skip)


def _draw_slot(draw: Draw, first_slot: int, first_row: int, rows: Ints, slot: int) -> Floats:
    return draw(first_row + rows, first_slot + slot)


def _fits(level: Level, used: Ints) -> NDArray[np.bool_]:
    """Return whether the level has a length for clips of so many frames; length 1 is for pictures alone."""
    moving = [length for length in level.lengths if length > 1]
    as_video = (used > 1) & (used >= (moving[-1] if moving else np.iinfo(np.int64).max))
    result: NDArray[np.bool_] = as_video | ((used == 1) & (level.lengths[-1] == 1))
    return result


def _pick_lengths(level: Level, used: Ints, rows: Ints, draw: Draw) -> Ints:
    """Return for each of `rows` the index of its length in the level, -1 where it is not taken."""
    picked = np.full(len(rows), -1, dtype=np.int64)
    still = used[rows] == 1
    if level.lengths[-1] == 1 and still.any():
        place = len(level.lengths) - 1
        at = np.flatnonzero(still)
        # A picture asks for its own probability, strictly: 0 never, 1 always, since draws are below 1.
        picked[at[draw(rows[at], 2 * place) < level.keep[place]]] = place
    candidate = _longest_fitting(level, used, rows, ~still, draw)
    for place in range(len(level.lengths)):
        at = np.flatnonzero(candidate == place)
        if len(at) and level.keep[place] < 1:
            at = at[draw(rows[at], 2 * place) <= level.keep[place]]
        picked[at] = place
    return picked


def _longest_fitting(level: Level, used: Ints, rows: Ints, wanted: NDArray[np.bool_], draw: Draw) -> Ints:
    """Return the longest length that fits and is not skipped, as an index; -1 for none. Length 1 is for pictures alone."""
    ascending = np.array(level.lengths[::-1])
    longest = len(level.lengths) - np.searchsorted(ascending, used[rows], side="right")
    candidate = np.where(wanted, longest, len(level.lengths))
    nowhere = len(level.lengths) - (level.lengths[-1] == 1)
    for place, chance in enumerate(level.skip):
        if chance <= 0:
            continue
        at = np.flatnonzero(candidate == place)
        if chance < 1:
            at = at[draw(rows[at], 2 * place + 1) <= chance]
        candidate[at] = place + 1
    return np.where(candidate < nowhere, candidate, -1)


def _nearest_ratios(resolution: str, compression: int, ratios: Floats) -> Ints:
    """Return the index, in the resolution's table, of the ratio nearest to each height / width."""
    table = aspect_table(resolution, compression)
    borders, names = ratio_borders(table)
    order = list(table)
    places = np.searchsorted(np.array(borders), ratios, side="left")
    nearest = np.array([order.index(name) for name in names], dtype=np.int64)[places]
    # On a border two ratios are equally near, up to rounding: there the rule itself decides.
    on_border = np.isclose(ratios, np.array([*borders, np.inf])[places], rtol=1e-9, atol=0) | np.isclose(
        ratios, np.array([-np.inf, *borders])[places], rtol=1e-9, atol=0
    )
    for at in np.flatnonzero(on_border):
        nearest[at] = order.index(closest_ratio(float(ratios[at]), 1.0, table))
    return nearest
