"""The plan of an epoch: rows to buckets, buckets to batches, batches to ranks; a function of (seed, epoch) and the table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from opensora_cli.data.buckets import BLOCK_ROWS, Assignment, BucketKey, Buckets
from opensora_cli.data.draws import Ints, Purpose, Sizes, UInt64s, hashes
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.position import History
from opensora_cli.data.steps import arrange, remaining
from schemas.errors import OsoraError

SUBSTITUTES = 16
"""Rows of the same bucket that stand ready for clips of a batch that cannot be read."""


@dataclass(frozen=True)
class PlannedBatch:
    """Rows that are read together; `substitutes` are the rows that follow in the bucket's order, and step in for bad ones."""

    bucket: BucketKey
    rows: tuple[int, ...]
    substitutes: tuple[int, ...]


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch, the same whatever the number of ranks.

    `orders` has the shuffled rows of each bucket. Batch n, in shuffled order, begins at `cut_rows[n]` of the order of bucket
    `cut_buckets[n]`, counted as in `keys`. How ranks share the batches is up to `opensora_cli.data.steps`.
    """

    buckets: Buckets
    orders: dict[BucketKey, Sizes]
    cut_buckets: NDArray[np.int32]
    cut_rows: Ints
    assignment: Assignment

    def __len__(self) -> int:
        return len(self.cut_rows)

    @cached_property
    def keys(self) -> tuple[BucketKey, ...]:
        """The buckets that have rows."""
        return tuple(self.orders)

    def batch(self, number: int) -> PlannedBatch:
        """Return batch `number` of the epoch."""
        key, first = self.keys[self.cut_buckets[number]], int(self.cut_rows[number])
        order = self.orders[key]
        size = self.buckets.shape(key).batch_size
        behind = order[first + size : first + size + SUBSTITUTES]
        others = np.concatenate([behind, order[:first][: SUBSTITUTES - len(behind)]])
        return PlannedBatch(key, tuple(order[first : first + size].tolist()), tuple(others.tolist()))

    @cached_property
    def costs(self) -> Ints:
        """The tokens of every batch."""
        return np.array([self.buckets.tokens(key) for key in self.keys], dtype=np.int64)[self.cut_buckets]

    def batches_per_rank(self, dp_size: int, before: History = ()) -> int:
        """Return how many batches every rank gets, of those that are left after `before`.

        The few that are left over after equal shares are not used; after a resume on fewer ranks they are.
        """
        return (len(self) - sum(ranks * steps for ranks, steps in before)) // dp_size

    def of_rank(self, dp_rank: int, dp_size: int, start: int = 0, before: History = ()) -> "RankBatches":
        """Return the batches of one rank from its batch `start` on; `before` is what the epoch's earlier parts did."""
        steps = arrange(remaining(self.costs, before), self.costs, dp_size)
        return RankBatches(self, steps[start:, dp_rank])

    @cached_property
    def unfilled(self) -> dict[BucketKey, tuple[int, int]]:
        """Buckets with rows and too few of them for one batch: (rows, batch size)."""
        sizes = {key: (len(order), self.buckets.shape(key).batch_size) for key, order in self.orders.items()}
        return {key: (rows, size) for key, (rows, size) in sizes.items() if rows < size}

    @property
    def placed_rows(self) -> int:
        """How many rows are in buckets."""
        return sum(len(order) for order in self.orders.values())

    @property
    def used_rows(self) -> int:
        """How many rows are in batches."""
        sizes = np.array([self.buckets.shape(key).batch_size for key in self.keys], dtype=np.int64)
        return int(sizes[self.cut_buckets].sum())


class RankBatches(Sequence[PlannedBatch]):
    """Batches of a plan by their numbers, each made when it is asked for: ten million rows are two million batches."""

    def __init__(self, plan: EpochPlan, numbers: Ints) -> None:
        self._plan = plan
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> PlannedBatch: ...

    @overload
    def __getitem__(self, place: slice) -> "RankBatches": ...

    def __getitem__(self, place: int | slice) -> "PlannedBatch | RankBatches":
        """Return the batch at `place`, or several."""
        if isinstance(place, slice):
            return RankBatches(self._plan, self.numbers[place])
        return self._plan.batch(int(self.numbers[place]))


def plan_epoch(
    manifest: Manifest, buckets: Buckets, fps_max: float | None, *, seed: int, epoch: int, window: int | None = None
) -> EpochPlan:
    """Return the batches of an epoch, with the buckets drawn for `window`; without one, for the epoch itself.

    Each bucket's rows are shuffled and cut into full batches (what is left over waits for another epoch's order), and all
    batches are shuffled. Every order comes from hashes of (seed, epoch, row): no state, and no list to store for a resume.
    Raises OsoraError when no clip fits any bucket or no bucket fills a batch, with the numbers and what to change.
    """
    columns = manifest.frames, manifest.heights, manifest.widths, manifest.fps
    assignment = buckets.assign(*columns, fps_max, seed=seed, epoch=epoch if window is None else window)
    orders = _shuffled_rows(assignment, buckets, seed, epoch)
    if not orders:
        raise OsoraError(_nothing_fits(manifest, buckets, assignment))
    plan = EpochPlan(buckets, orders, *_shuffled_cuts(orders, buckets, seed, epoch), assignment)
    if not len(plan):
        raise OsoraError(_nothing_fills(plan))
    return plan


def _shuffled_rows(assignment: Assignment, buckets: Buckets, seed: int, epoch: int) -> dict[BucketKey, Sizes]:
    """Return the rows of every bucket that has some, in the order of their hashes."""
    width = np.int32 if len(assignment.bucket) < 2**31 else np.int64
    placed: Sizes = np.flatnonzero(assignment.bucket >= 0).astype(width)
    keys = np.empty(len(placed), dtype=np.uint64)
    front = len(buckets.keys).bit_length()
    for part in _blocks(len(placed)):
        rows = placed[part]
        # One number to sort by: the bucket in front, the hash behind it.
        keys[part] = assignment.bucket[rows].astype(np.uint64) << np.uint64(64 - front)
        keys[part] |= hashes(Purpose.ROW_ORDER, seed, epoch, rows) >> np.uint64(front)
    placed = placed[np.argsort(keys, kind="stable")]
    starts = np.flatnonzero(np.diff(assignment.bucket[placed], prepend=-1))
    return {buckets.keys[assignment.bucket[rows[0]]]: rows for rows in np.split(placed, starts[1:]) if len(rows)}


def _shuffled_cuts(
    orders: dict[BucketKey, Sizes], buckets: Buckets, seed: int, epoch: int
) -> tuple[NDArray[np.int32], Ints]:
    """Return the bucket and the first row of every full batch, in the order of the hashes of the batches' first clips."""
    sizes = [buckets.shape(key).batch_size for key in orders]
    firsts = [np.arange(0, len(o) - size + 1, size) for o, size in zip(orders.values(), sizes, strict=True)]
    cut_buckets = np.repeat(np.arange(len(firsts), dtype=np.int32), [len(first) for first in firsts])
    clips = [order[first] for order, first in zip(orders.values(), firsts, strict=True)]
    keys: UInt64s = np.concatenate([hashes(Purpose.BATCH_ORDER, seed, epoch, rows) for rows in clips])
    order = np.argsort(keys, kind="stable")
    return cut_buckets[order], np.concatenate(firsts)[order]


def _blocks(rows: int) -> Iterator[slice]:
    for first in range(0, rows, BLOCK_ROWS):
        yield slice(first, first + BLOCK_ROWS)


def _nothing_fits(manifest: Manifest, buckets: Buckets, assignment: Assignment) -> str:
    smallest = min(level.pixels for level in buckets.levels)
    shortest = min(level.lengths[-1] for level in buckets.levels)
    return (
        f"{manifest.source}: none of {len(manifest)} clips fits a bucket: {assignment.too_small} have too few pixels "
        f"(0.8 x {smallest} are needed), {assignment.too_short} too few frames (at least {shortest}, after dataset.fps_max), "
        f"{assignment.not_drawn} were left out by their keep probability. Add smaller or shorter buckets."
    )


def _nothing_fills(plan: EpochPlan) -> str:
    lines = [f"  {key}: {rows} clips, batch size {size}" for key, (rows, size) in plan.unfilled.items()]
    return "\n".join(
        [
            "no bucket has enough clips for one batch:",
            *lines,
            "Lower the batch sizes in [buckets], or add clips of these shapes.",
        ]
    )
