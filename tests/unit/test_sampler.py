"""The plan of an epoch: every promise about batches, ranks and resuming."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensora_cli.data.batches import SUBSTITUTES, EpochPlan, PlannedBatch, plan_epoch
from opensora_cli.data.buckets import Buckets, BucketTable
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.position import History, Position
from schemas.errors import OsoraError
from tests.unit.manifest_fakes import manifest

TABLE: BucketTable = {"256px": {17: (1.0, 3), 33: (1.0, 2), 1: (1.0, 4)}, "512px": {17: (0.5, 2)}}


def rows_of(plan: EpochPlan, ranks: int, steps: int | None = None, before: History = ()) -> list[int]:
    """The rows that all ranks see in their first steps, after `before`; all of their steps for None."""
    parts = [plan.of_rank(rank, ranks, before=before)[:steps] for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    return [row for part in parts for batch in part for row in batch.rows]


@settings(deadline=None)
@given(
    rows=st.integers(60, 200),
    ranks=st.integers(1, 5),
    consumed=st.integers(0, 30),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 9),
)
def test_ranks_partition_the_epoch_and_resume_exactly(
    rows: int, ranks: int, consumed: int, seed: int, epoch: int
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


@settings(deadline=None)
@given(
    rows=st.integers(60, 300),
    parts=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 12)), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_other_ranks_go_on_with_what_is_left(rows: int, parts: list[tuple[int, int]], seed: int) -> None:
    """However often the number of ranks changes: no row twice, and one rank at the end finishes every batch of the epoch."""
    data = manifest(rows, seed % 7)
    seen: list[int] = []
    position = Position()
    for ranks, steps in parts:
        plan = plan_epoch(data, Buckets(TABLE), None, seed=seed, epoch=0)
        position = position.on(ranks)
        steps = min(steps, plan.batches_per_rank(ranks, position.before) - position.batch)
        for rank in range(ranks):
            batches = plan.of_rank(rank, ranks, position.batch, position.before)
            seen += [row for batch in batches[:steps] for row in batch.rows]
        position = position.at(position.batch + steps)
    plan = plan_epoch(data, Buckets(TABLE), None, seed=seed, epoch=0)
    last = position.on(1)
    seen += [row for batch in plan.of_rank(0, 1, last.batch, last.before) for row in batch.rows]
    assert len(seen) == len(set(seen)) == plan.used_rows
    assert set(seen) == {row for number in range(len(plan)) for row in plan.batch(number).rows}


def test_two_then_four_then_one_rank_see_every_sample_once() -> None:
    """Eighty clips that fill their buckets to the last one: each is seen once, whatever happens to the ranks."""
    data = manifest(80)
    for name, value in (("heights", 256), ("widths", 256), ("frames", 17)):
        object.__setattr__(data, name, np.full(80, value))
    plan = plan_epoch(data, Buckets({"256px": {17: (1.0, 2)}}), None, seed=3, epoch=5)
    seen = rows_of(plan, 2, 7) + rows_of(plan, 4, 5, ((2, 7),)) + rows_of(plan, 1, None, ((2, 7), (4, 5)))
    assert sorted(seen) == list(range(80))


def test_batches_of_a_step_cost_the_same_as_far_as_they_can() -> None:
    """All steps together wait for less than the dearest batch costs, and no rank has more to do than another."""
    plan = plan_epoch(manifest(4000), Buckets(TABLE), None, seed=1, epoch=0)
    assert len(set(plan.costs)) > 10
    for ranks in (2, 4, 7, 8):
        costs = plan.costs[np.stack([plan.of_rank(rank, ranks).numbers for rank in range(ranks)])]
        waits = costs.max(axis=0) - costs.min(axis=0)
        assert waits.sum() <= plan.costs.max() - plan.costs.min()
        assert np.ptp(costs.sum(axis=1)) <= plan.costs.max()
        in_order = plan.costs[: costs.size].reshape(-1, ranks)
        assert waits.sum() < 0.05 * np.ptp(in_order, axis=1).sum()
        # Dear and cheap steps are mixed: the halves of the epoch cost the same, but for chance.
        half = costs.shape[1] // 2
        assert costs[:, :half].sum() / costs[:, -half:].sum() == pytest.approx(1, abs=0.15)


def test_what_is_left_over_has_nothing_to_do_with_cost() -> None:
    data = manifest(600)
    spare = []
    for epoch in range(60):
        plan = plan_epoch(data, Buckets(TABLE), None, seed=1, epoch=epoch)
        used = np.concatenate([plan.of_rank(rank, 8).numbers for rank in range(8)])
        spare += plan.costs[np.setdiff1d(np.arange(len(plan)), used)].tolist()
    assert len(spare) > 100
    assert np.mean(spare) == pytest.approx(plan.costs.mean(), rel=0.15)


def test_a_checkpoint_of_other_data() -> None:
    plan = plan_epoch(manifest(60), Buckets(TABLE), None, seed=0, epoch=0)
    with pytest.raises(OsoraError, match=r"behind 99 steps of 2 data-parallel ranks, and the epoch has \d+"):
        plan.of_rank(0, 1, before=((2, 99),))


def test_positions() -> None:
    start = Position()
    assert start.on(4) == Position(0, 0, 4)
    assert start.at(3).on(4).at(2).on(4) == Position(0, 2, 4, ((1, 3),))
    assert start.at(3).on(4).at(2).on(2) == Position(0, 0, 2, ((1, 3), (4, 2)))
    assert start.at(3).on(4).next_epoch() == Position(1, 0, 4)


def test_tokens() -> None:
    buckets = Buckets({"256px": {33: (1.0, 3), 1: (1.0, 2)}}, compression=16, frame_compression=4)
    square = {key.frames: buckets.tokens(key) for key in buckets.keys if key.aspect == "1:1"}
    assert square == {33: 3 * 9 * 256, 1: 2 * 256}
    halves = Buckets({"256px": {32: (1.0, 3)}}, compression=32, frame_compression=4)
    assert {halves.tokens(key) for key in halves.keys if key.aspect == "1:1"} == {3 * 8 * 64}


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
    assert {plan.batch(number).bucket.frames for number in range(len(plan))} == {17}
