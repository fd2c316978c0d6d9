"""Which clip goes to which bucket, where golden rows cannot say it: draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensora_cli.data import buckets as buckets_module
from opensora_cli.data.buckets import Buckets, BucketTable, Draw
from opensora_cli.data.draws import Floats, Ints, Purpose, hashes, uniforms
from tests.parity.families.data import bucket_of

N = 20_000
MIXED: BucketTable = {
    "256px": {1: (0.2, 4), 33: ((0.6, 0.3), 2), 97: ((1.0, 0.5), 1), 129: (0.4, 1)},
    "512px": {33: (0.5, 1), 65: ((0.3, 0.2), 1)},
}


def columns(frames: int, height: int = 512, width: int = 512, n: int = N) -> tuple[Ints, Ints, Ints, Floats]:
    return np.full(n, frames), np.full(n, height), np.full(n, width), np.full(n, np.nan)


def shares(buckets: Buckets, frames: int, **where: int) -> dict[tuple[str, int] | None, float]:
    chosen = buckets.assign(*columns(frames, **where), None, seed=3, epoch=1).bucket
    names = [None if b < 0 else buckets.keys[b][:2] for b in chosen]
    return {name: names.count(name) / len(names) for name in set(names)}


@pytest.mark.parametrize(
    ("frames", "want"),
    [
        (1, {("256px", 1): 0.2, None: 0.8}),
        (33, {("512px", 33): 0.5, ("256px", 33): 0.5 * 0.7 * 0.6, None: 0.5 * (0.3 + 0.7 * 0.4)}),
        (
            65,  # 512px: 0.8 take length 65 and keep 0.3 of it, 0.2 skip to length 33 and keep half of it
            {("512px", 65): 0.24, ("512px", 33): 0.1, ("256px", 33): 0.66 * 0.7 * 0.6, None: 0.66 * (0.3 + 0.7 * 0.4)},
        ),
    ],
)
def test_distribution_of_draws(frames: int, want: dict[tuple[str, int] | None, float]) -> None:
    got = shares(Buckets(MIXED), frames)
    assert got.keys() == want.keys()
    for name, share in want.items():
        assert got[name] == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / N)), name


@given(
    row=st.tuples(st.integers(1, 300), st.sampled_from([100, 256, 512, 1024]), st.sampled_from([100, 256, 512, 1024])),
    fps=st.sampled_from([None, 24.0, 60.0]),
    seed=st.integers(0, 2**63),
)
def test_many_rows_at_once_are_the_same_as_one_by_one(row: tuple[int, int, int], fps: float | None, seed: int) -> None:
    """The same draw for every slot: with it, one row alone and among others gets the same bucket."""
    buckets = Buckets(MIXED)
    value = float(uniforms(Purpose.BUCKET, seed, 0, np.array([0]))[0])
    draw: Draw = lambda rows, _slot: np.full(len(rows), value)  # noqa: E731
    frames, heights, widths, rate = (np.array([v, 129, v]) for v in (*row, np.nan if fps is None else fps))
    heights[1] = widths[1] = 512
    together = buckets.assign_by(frames, heights, widths, rate.astype(float), 24, draw).bucket
    alone = buckets.assign_by(*(c[:1] for c in (frames, heights, widths, rate.astype(float))), 24, draw).bucket
    assert together[0] == together[2] == alone[0]


def test_draws_are_functions_of_seed_epoch_and_row() -> None:
    buckets = Buckets(MIXED)
    one = buckets.assign(*columns(129), None, seed=1, epoch=0).bucket
    assert (one == buckets.assign(*columns(129), None, seed=1, epoch=0).bucket).all()
    assert (one[:50] == buckets.assign(*columns(129, n=50), None, seed=1, epoch=0).bucket).all()
    for other in ({"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}):
        assert 0.2 < (one != buckets.assign(*columns(129), None, **other).bucket).mean() < 0.9


def test_blocks_of_any_size_give_the_same_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frames, heights, widths = rng.integers(1, 200, 5000), rng.integers(100, 900, 5000), rng.integers(100, 900, 5000)
    fps = rng.choice([24.0, 30.0, 60.0, np.nan], 5000)
    whole = Buckets(MIXED).assign(frames, heights, widths, fps, 24, seed=1, epoch=2)
    narrow = (frames.astype(np.int32), heights.astype(np.int32), widths.astype(np.int32))
    for rows in (1, 77, 4999):
        monkeypatch.setattr(buckets_module, "BLOCK_ROWS", rows)
        count = 300 if rows == 1 else 5000
        parts = Buckets(MIXED).assign(*(c[:count] for c in (*narrow, fps)), 24, seed=1, epoch=2)
        assert parts.bucket.tolist() == whole.bucket[:count].tolist()
    assert (parts.too_small, parts.too_short, parts.not_drawn) == (whole.too_small, whole.too_short, whole.not_drawn)
    assert min(whole.too_small, whole.too_short, whole.not_drawn) > 100


def test_hashes_are_well_mixed() -> None:
    rows = np.arange(4096)
    kinds = [
        (Purpose.BUCKET, 0, 0, 0),
        (Purpose.BUCKET, 0, 1, 0),
        (Purpose.BUCKET, 1, 0, 0),
        (Purpose.CLIP_START, 0, 0, 0),
    ]
    bits = [np.unpackbits(hashes(p, s, e, rows, slot).view(np.uint8)) for p, s, e, slot in kinds]
    for one in bits:
        assert one.mean() == pytest.approx(0.5, abs=0.01)
        for other in bits:
            assert one is other or (one == other).mean() == pytest.approx(0.5, abs=0.01)


def test_why_rows_fit_nowhere() -> None:
    frames, heights, widths = np.array([40, 40, 10, 40]), np.array([512, 64, 512, 512]), np.array([512, 64, 512, 512])
    never = Buckets({"256px": {33: (0.0, 1)}}).assign(frames, heights, widths, np.full(4, 24.0), None, seed=0, epoch=0)
    assert (never.too_small, never.too_short, never.not_drawn) == (1, 1, 2)


def test_length_one_is_for_pictures_alone() -> None:
    buckets = Buckets({"256px": {1: (1.0, 1)}})
    assert bucket_of(buckets, 4, 512, 512, 24.0, 0, 24) is None
    assert bucket_of(buckets, 1, 512, 512, None, 0, 24) == ["256px", 1, "1:1", [1, 256, 256, 1]]
    stills = buckets.assign(np.array([4]), np.array([512]), np.array([512]), np.array([24.0]), None, seed=0, epoch=0)
    assert (stills.too_short, stills.not_drawn) == (1, 0)
