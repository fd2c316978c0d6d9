"""The plan of an epoch: every promise about batches, ranks and resuming."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensora_cli.data.batches import SUBSTITUTES, PlannedBatch, plan_epoch
from opensora_cli.data.buckets import Buckets, BucketTable
from opensora_cli.data.manifest import Manifest
from schemas.errors import OsoraError

TABLE: BucketTable = {"256px": {17: (1.0, 3), 33: (1.0, 2), 1: (1.0, 4)}, "512px": {17: (0.5, 2)}}


def manifest(rows: int, seed: int = 0) -> Manifest:
    rng = np.random.default_rng(seed)
    names = pa.array([f"{row}.mp4" for row in range(rows)])
    sizes = rng.choice([256, 288, 512, 640], (2, rows))
    return Manifest(
        source=Path("meta.csv"),
        paths=names,
        texts=names,
        heights=sizes[0],
        widths=sizes[1],
        frames=rng.choice([1, 17, 20, 40], rows),
        fps=np.full(rows, 24.0),
        motion=None,
        whole_fps=False,
        fingerprint="",
    )


@settings(deadline=None)
@given(
    rows=st.integers(60, 200),
    ranks=st.integers(1, 5),
    consumed=st.integers(0, 30),
    other_ranks=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 9),
)
def test_ranks_partition_the_epoch_and_resume_exactly(
    rows: int, ranks: int, consumed: int, other_ranks: int, seed: int, epoch: int
) -> None:
    data, buckets = manifest(rows, seed % 7), Buckets(TABLE)
    plan = plan_epoch(data, buckets, None, seed=seed, epoch=epoch)
    parts = [list(plan.of_rank(rank, ranks)) for rank in range(ranks)]
    assert {len(part) for part in parts} == {plan.batches_per_rank(ranks)}
    assert len(plan) - ranks < ranks * plan.batches_per_rank(ranks) <= len(plan)

    seen = Counter(row for part in parts for batch in part for row in batch.rows)
    assert not seen or max(seen.values()) == 1

    consumed = min(consumed, len(parts[0]))
    again = plan_epoch(data, Buckets(TABLE), None, seed=seed, epoch=epoch)
    for rank, part in enumerate(parts):
        assert list(again.of_rank(rank, ranks, start=consumed)) == part[consumed:]

    done = {row for part in parts for batch in part[:consumed] for row in batch.rows}
    if consumed * ranks % other_ranks == 0:  # the order does not depend on the number of ranks
        rest = [
            b for rank in range(other_ranks) for b in again.of_rank(rank, other_ranks, consumed * ranks // other_ranks)
        ]
        assert not done & {row for batch in rest for row in batch.rows}


def test_batches_are_full_of_one_bucket_with_substitutes_from_it() -> None:
    data, buckets = manifest(120), Buckets(TABLE)
    plan = plan_epoch(data, buckets, None, seed=1, epoch=0)
    for number in range(len(plan)):
        batch = plan.batch(number)
        order = plan.orders[batch.bucket].tolist()
        assert len(batch.rows) == buckets.shape(batch.bucket).batch_size
        assert len(batch.substitutes) == min(SUBSTITUTES, len(order) - len(batch.rows))
        assert set(batch.rows) | set(batch.substitutes) <= set(order)
        assert not set(batch.rows) & set(batch.substitutes)


def test_orders_differ_between_seeds_and_epochs() -> None:
    data, buckets = manifest(120), Buckets(TABLE)
    orders = {key: batches(data, buckets, *key) for key in [(1, 0), (1, 1), (2, 0)]}
    assert orders[1, 0] == batches(data, buckets, 1, 0)
    assert len({tuple(b.rows for b in order) for order in orders.values()}) == 3


def batches(data: Manifest, buckets: Buckets, seed: int, epoch: int) -> list[PlannedBatch]:
    return list(plan_epoch(data, buckets, None, seed=seed, epoch=epoch).of_rank(0, 1))


def test_nothing_fits() -> None:
    with pytest.raises(OsoraError) as caught:
        plan_epoch(manifest(50), Buckets({"1024px": {17: (1.0, 1)}, "512px": {129: (1.0, 1)}}), None, seed=0, epoch=0)
    text = str(caught.value)
    assert "none of 50 clips fits a bucket" in text
    small = int(np.sum(manifest(50).heights * manifest(50).widths < 0.8 * 512**2))
    assert f"{small} have too few pixels" in text
    assert f"{50 - small} too few frames (at least 17" in text


def test_no_bucket_fills_a_batch() -> None:
    with pytest.raises(OsoraError, match=r"256px 17 frames .*: \d+ clips, batch size 50") as caught:
        plan_epoch(manifest(20), Buckets({"256px": {17: (1.0, 50)}}), None, seed=0, epoch=0)
    assert "Lower the batch sizes" in str(caught.value)


def test_a_bucket_that_cannot_fill_a_batch_is_known() -> None:
    plan = plan_epoch(manifest(40), Buckets({"256px": {17: (1.0, 2), 1: (1.0, 30)}}), None, seed=0, epoch=0)
    assert plan.unfilled
    assert {size for key, (_, size) in plan.unfilled.items() if key.frames == 1} == {30}
    assert all(key.frames == 17 for key, _ in plan.cuts)
