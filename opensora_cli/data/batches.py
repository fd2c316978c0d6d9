"""The plan of an epoch: rows to buckets, buckets to batches, batches to ranks; a function of (seed, epoch) and the table."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from opensora_cli.data.buckets import Assignment, BucketKey, Buckets
from opensora_cli.data.draws import Ints, Purpose, hashes
from opensora_cli.data.manifest import Manifest
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
    """The batches of one epoch, the same whatever the number of ranks: rank r of n takes batches r, r + n, r + 2n, ...

    `orders` has the shuffled rows of each bucket, `cuts` a (bucket, first row) of each batch, in order of use.
    """

    buckets: Buckets
    orders: dict[BucketKey, Ints]
    cuts: tuple[tuple[BucketKey, int], ...]
    assignment: Assignment

    def __len__(self) -> int:
        return len(self.cuts)

    def batch(self, number: int) -> PlannedBatch:
        """Return batch `number` of the epoch."""
        key, first = self.cuts[number]
        order = self.orders[key]
        size = self.buckets.shape(key).batch_size
        others = np.concatenate([order[first + size :], order[:first]])[:SUBSTITUTES]
        return PlannedBatch(key, tuple(order[first : first + size].tolist()), tuple(others.tolist()))

    def batches_per_rank(self, dp_size: int) -> int:
        """Return how many batches every rank gets; the few that are left over after equal shares are not used."""
        return len(self.cuts) // dp_size

    def of_rank(self, dp_rank: int, dp_size: int, start: int = 0) -> Iterator[PlannedBatch]:
        """Yield the batches of one rank from its batch `start` on."""
        for number in range(start, self.batches_per_rank(dp_size)):
            yield self.batch(number * dp_size + dp_rank)

    @cached_property
    def unfilled(self) -> dict[BucketKey, tuple[int, int]]:
        """Buckets with rows and too few of them for one batch: (rows, batch size)."""
        sizes = {key: (len(order), self.buckets.shape(key).batch_size) for key, order in self.orders.items()}
        return {key: (rows, size) for key, (rows, size) in sizes.items() if rows < size}

    @property
    def used_rows(self) -> int:
        """How many rows are in batches."""
        return sum(self.buckets.shape(key).batch_size for key, _ in self.cuts)


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
    placed = np.flatnonzero(assignment.bucket >= 0)
    if not len(placed):
        raise OsoraError(_nothing_fits(manifest, buckets, assignment))
    keys = hashes(Purpose.ROW_ORDER, seed, epoch, placed)
    placed = placed[np.lexsort((placed, keys, assignment.bucket[placed]))]
    starts = np.flatnonzero(np.diff(assignment.bucket[placed], prepend=-1))
    orders = {buckets.keys[assignment.bucket[rows[0]]]: rows for rows in np.split(placed, starts[1:])}
    plan = EpochPlan(buckets, orders, _shuffled_cuts(orders, buckets, seed, epoch), assignment)
    if not plan.cuts:
        raise OsoraError(_nothing_fills(plan))
    return plan


def _shuffled_cuts(
    orders: dict[BucketKey, Ints], buckets: Buckets, seed: int, epoch: int
) -> tuple[tuple[BucketKey, int], ...]:
    cuts: list[tuple[BucketKey, int]] = []
    for key, order in orders.items():
        size = buckets.shape(key).batch_size
        cuts += [(key, first) for first in range(0, len(order) - size + 1, size)]
    first_rows = np.array([orders[key][first] for key, first in cuts], dtype=np.int64)
    return tuple(
        cuts[place] for place in np.argsort(hashes(Purpose.BATCH_ORDER, seed, epoch, first_rows), kind="stable")
    )


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
