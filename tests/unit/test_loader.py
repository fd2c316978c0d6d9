"""The loader: the right frames with the right captions, the same for any number of workers, from any batch on."""

import csv
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opensora_cli.data.dataset import Batch
from opensora_cli.data.loader import Loader, build_loader
from schemas.data import BucketTable, DatasetConfig
from schemas.errors import OsoraError, UsageError
from tests.unit.data_fakes import numbered_mp4, numbers_of

BUCKETS: BucketTable = {"32px": {9: (1.0, 2), 5: (1.0, 3)}}
CLIPS = 12

Make = Callable[..., Loader]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve numbered clips: 20 frames of 16 per second, every third one 12 frames of 8."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(CLIPS):
        frames, fps = (12, 8) if number % 3 == 0 else (20, 16)
        numbered_mp4(folder / f"{number}.mp4", frames, fps, (32, 32))
    return folder


@pytest.fixture
def make(clips: Path, tmp_path: Path) -> Make:
    """Write a table (with some cells changed) and build its loader."""

    def build(
        changes: dict[int, dict[str, object]] | None = None,
        buckets: BucketTable = BUCKETS,
        ranks: tuple[int, int] = (0, 1),
        seed: int = 7,
        **config: object,
    ) -> Loader:
        rows = []
        for number in range(CLIPS):
            frames, fps = (12, 8.0) if number % 3 == 0 else (20, 16.0)
            row = {"path": clips / f"{number}.mp4", "text": f"clip {number}", "height": 32, "width": 32}
            rows.append({**row, "num_frames": frames, "fps": fps, **(changes or {}).get(number, {})})
        with (tmp_path / "meta.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        dataset = DatasetConfig(**{"data_path": str(tmp_path / "meta.csv"), "num_workers": 0, "fps_max": 8, **config})
        return build_loader(dataset, buckets, compression=8, seed=seed, dp_rank=ranks[0], dp_size=ranks[1])

    return build


def frame_numbers(batch: Batch, place: int) -> list[int]:
    return numbers_of(((batch.video[place] + 1) * 127.5).permute(1, 2, 3, 0).numpy())


def assert_same(one: list[Batch], two: list[Batch]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.video, b.video)
        assert (a.text, a.rows, a.bucket, a.fps, a.bad) == (b.text, b.rows, b.bucket, b.fps, b.bad)


def test_a_batch_holds_consecutive_frames_of_its_rows(make: Make) -> None:
    loader = make()
    batches = list(loader.epoch(0))
    assert len(batches) == loader.batches_per_epoch(0) == CLIPS // 2
    for batch in batches:
        assert batch.video.shape == (2, 3, 9, 32, 32)
        assert batch.video.dtype == torch.float32
        assert batch.bucket[:2] == ("32px", 9)
        assert batch.bad == []
        for place, row in enumerate(batch.rows):
            stride = 1 if row % 3 == 0 else 2
            numbers = frame_numbers(batch, place)
            steps = [b - a for a, b in pairwise(numbers)]
            # The window's last frame is always taken, so that now and then one frame more is skipped.
            assert sum(steps) == 9 * stride - 1, (row, numbers)
            assert set(steps) <= {stride, stride + 1}, (row, numbers)
            assert batch.text[place] == f"clip {row} 8 FPS."
            assert batch.fps[place] == 8
    assert sorted(row for batch in batches for row in batch.rows) == list(range(CLIPS))


def test_epochs_and_seeds_start_clips_elsewhere(make: Make) -> None:
    starts = {
        (seed, epoch): [{row: frame_numbers(b, i)[0] for b in loader.epoch(epoch) for i, row in enumerate(b.rows)}]
        for seed, loader in ((1, make(seed=1)), (2, make(seed=2)))
        for epoch in (0, 1)
    }
    values = [tuple(sorted(found[0].items())) for found in starts.values()]
    assert len(set(values)) == 4
    assert {start for value in values for row, start in value if row % 3 == 0} == {0, 1, 2, 3}


def test_any_number_of_workers_gives_the_same_bits(make: Make) -> None:
    want = [list(make().epoch(epoch)) for epoch in range(3)]
    for workers in (1, 2):
        loader = make(num_workers=workers)
        for epoch in range(3):
            assert_same(list(loader.epoch(epoch)), want[epoch])
        assert_same(list(loader.epoch(1, 2)), want[1][2:])


def test_an_epoch_can_be_left_early(make: Make) -> None:
    loader = make(num_workers=1)
    first = next(iter(loader.epoch(0)))
    assert_same(list(loader.epoch(1)), list(make().epoch(1)))
    assert_same([next(iter(loader.epoch(0)))], [first])


GROUP = """
import os, signal, sys
from opensora_cli.data.loader import build_loader
from schemas.data import DatasetConfig

if __name__ == "__main__":
    got = []
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda number, frame: got.append(number))
    loader = build_loader(
        DatasetConfig(data_path=sys.argv[1], num_workers=2, prefetch_factor=1), {"32px": {9: (1.0, 1)}}, compression=8, seed=0
    )
    for count, batch in enumerate(loader.epoch(0), start=1):
        if count == 2:
            os.killpg(0, signal.SIGTERM)
        if count == 4:
            os.killpg(0, signal.SIGINT)
    print(count, got)
"""


def test_signals_to_the_whole_group_leave_the_workers_to_the_main_process(make: Make, tmp_path: Path) -> None:
    make()
    script = tmp_path / "script.py"
    script.write_text(GROUP)
    command = [sys.executable, str(script), str(tmp_path / "meta.csv")]
    done = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{CLIPS} [{signal.SIGTERM:d}, {signal.SIGINT:d}]\n", 0), done.stderr
    assert done.stderr == ""


KILLED = """
import os, signal, sys
from opensora_cli.data.loader import build_loader
from schemas.data import DatasetConfig

if __name__ == "__main__":
    loader = build_loader(
        DatasetConfig(data_path=sys.argv[1], num_workers=2), {"32px": {9: (1.0, 1)}}, compression=8, seed=0
    )
    next(loader.epoch(0))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_killed_main_process(make: Make, tmp_path: Path) -> None:
    make()
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(tmp_path / "meta.csv")]
    # The pipe of stdout is closed when the last process that has it ends: were a worker left, this would not return.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stdout


@pytest.fixture
def worker_of(make: Make) -> Iterator[Callable[..., tuple[Loader, int]]]:
    """Build a loader with one worker that has read an epoch and waits; also gives its process id."""
    started: list[multiprocessing.process.BaseProcess] = []

    def build(**config: object) -> tuple[Loader, int]:
        before = set(multiprocessing.active_children())
        loader = make(num_workers=1, **config)
        assert len(list(loader.epoch(0))) == CLIPS // 2
        started.extend(set(multiprocessing.active_children()) - before)
        assert len(started) == 1
        return loader, started[0].pid or 0

    yield build
    for process in started:
        process.kill()  # a stopped process takes no other signal


def test_a_worker_that_is_refused_shared_memory_says_so(worker_of: Callable[..., tuple[Loader, int]]) -> None:
    loader, pid = worker_of()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 16, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(
        OsoraError, match=r"data worker 0 was refused 0\.2 MiB of shared memory for 1 tensors, rows \[\d+, \d+\]"
    ):
        list(loader.epoch(1))


def test_a_worker_that_hangs_is_waited_for_so_long_only(worker_of: Callable[..., tuple[Loader, int]]) -> None:
    loader, pid = worker_of()
    loader._watch.seconds = 0.5  # not before: the start of a worker counts too
    want = [f"  row {row}: " for row in loader.plan(1).batch(0).rows]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(OsoraError, match=r"data worker 0 .* within dataset.worker_timeout_seconds = 0\.5") as caught:
        list(loader.epoch(1))
    assert all(line in str(caught.value) for line in want)


def test_a_worker_that_is_killed_ends_the_run(worker_of: Callable[..., tuple[Loader, int]]) -> None:
    loader, pid = worker_of()
    batches = loader.epoch(1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OsoraError, match=r"data worker 0 .* ended unexpectedly"):
        list(batches)


def test_two_epochs_at_once_are_a_bug(make: Make) -> None:
    loader = make()
    first = loader.epoch(0)
    next(first)
    loader.epoch(1)
    with pytest.raises(AssertionError, match="two epochs"):
        next(first)


def test_ranks_see_disjoint_clips_and_equal_counts(make: Make) -> None:
    parts = [list(make(ranks=(rank, 4)).epoch(2)) for rank in range(4)]
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    rows = [row for part in parts for batch in part for row in batch.rows]
    assert len(set(rows)) == len(rows) == 8


def test_unreadable_clips_are_replaced_and_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    changes = {4: {"path": "broken.mp4"}, 5: {"num_frames": 60}, 7: {"path": "missing.mp4"}}
    for workers in (0, 2):
        batches = list(make(changes, num_workers=workers).epoch(0))
        bad = {row: (path, reason) for batch in batches for row, path, reason in batch.bad}
        assert set(bad) >= {4, 7}
        assert bad[4] == (str(tmp_path / "broken.mp4"), "Invalid data found when processing input")
        assert bad[7][1] == "No such file or directory"
        assert 5 not in bad or "is wanted" in bad[5][1]
        for batch in batches:
            assert len(batch.rows) == 2
            assert not {4, 7} & set(batch.rows)
            assert [text.split(" ")[1] for text in batch.text] == [str(row) for row in batch.rows]
            assert batch.video.isfinite().all()


def test_no_substitute_left(make: Make) -> None:
    changes = {number: {"path": "missing.mp4"} for number in range(CLIPS)}
    for workers in (0, 1):
        with pytest.raises(OsoraError, match=r"bucket 32px 9 frames .* clips cannot be read") as caught:
            list(make(changes, num_workers=workers).epoch(0))
        assert "No such file or directory" in str(caught.value)


def test_images_train_beside_clips(make: Make, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(tmp_path / "still.png")
    still = {"path": "still.png", "num_frames": 1, "fps": "", "height": 40, "width": 40}
    loader = make({2: still, 6: still}, buckets={"32px": {9: (1.0, 2), 1: (1.0, 2)}})
    stills = [batch for batch in loader.epoch(0) if batch.bucket.frames == 1]
    assert [sorted(batch.rows) for batch in stills] == [[2, 6]]
    assert stills[0].video.shape == (2, 3, 1, 32, 32)
    assert stills[0].video.unique().tolist() == pytest.approx([200 / 127.5 - 1])
    assert sorted(stills[0].text) == ["clip 2", "clip 6"]
    assert stills[0].fps == [0, 0]


def test_random_crops_depend_on_the_epoch_and_the_row_alone(make: Make, tmp_path: Path) -> None:
    Image.fromarray(np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)).save(tmp_path / "still.png")
    still = {"path": "still.png", "num_frames": 1, "fps": "", "height": 60, "width": 80}
    same = dict.fromkeys(range(CLIPS), still)
    loader = make(same, {"32px": {1: (1.0, 2)}}, transform_name="rand_size_crop")
    epochs = [list(loader.epoch(epoch)) for epoch in (0, 1)]
    crops = {batch.video[i].numpy().tobytes() for epoch in epochs for batch in epoch for i in range(2)}
    assert len(crops) == 2 * CLIPS
    again = make(same, {"32px": {1: (1.0, 2)}}, transform_name="rand_size_crop", num_workers=2)
    assert_same(list(again.epoch(1, 2)), epochs[1][2:])


def test_decoder_threads_do_not_change_the_bits(make: Make) -> None:
    assert_same(list(make(decode_threads=2).epoch(0)), list(make().epoch(0)))


def test_a_reader_that_is_not_installed_is_said_before_the_first_batch(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(UsageError, match="torchcodec does not load here"):
        make(reader="torchcodec")


def test_motion_score(make: Make) -> None:
    loader = make({row: {"vmaf_motion": row + 0.5} for row in range(CLIPS)}, vmaf=True)
    for batch in loader.epoch(0):
        assert batch.text == [f"clip {row} 8 FPS, {row + 1} motion score." for row in batch.rows]


def test_what_is_left_out_is_said(make: Make) -> None:
    assert make().warnings() == []
    changes = {0: {"height": 8}, 1: {"num_frames": 3}, 2: {"height": 48, "width": 24}}
    lines = make(changes).warnings()
    assert lines[:2] == [
        "1 of 12 clips have too few pixels for every bucket",
        "1 of 12 clips have too few frames for every bucket",
    ]
    assert any("has 1 clips, fewer than its batch size 2" in line for line in lines[2:])


def test_more_ranks_than_batches(make: Make) -> None:
    with pytest.raises(OsoraError, match="epoch 0 has 6 batches for 7 data-parallel ranks: use fewer ranks"):
        make(ranks=(0, 7))


def test_a_start_behind_the_end(make: Make) -> None:
    loader = make()
    assert list(loader.epoch(0, 6)) == []
    with pytest.raises(OsoraError, match="cannot start at batch 7 of epoch 0: the rank has 6"):
        loader.epoch(0, 7)


@pytest.mark.parametrize(
    ("config", "buckets", "says"),
    [
        ({"data_path": None}, BUCKETS, "dataset.data_path is not set"),
        ({"data_path": "no.csv"}, BUCKETS, "no.csv: no such file"),
        ({}, {}, r"\[buckets\] is empty"),
        ({}, {"32px": {9: (1.0, 50)}}, "32px 9 frames .*: 12 clips, batch size 50"),
        ({}, {"64px": {9: (1.0, 1)}}, "none of 12 clips fits a bucket: 12 have too few pixels"),
        ({}, {"32px": {33: (1.0, 1)}}, "0 have too few pixels .*, 12 too few frames"),
        ({"vmaf": True}, BUCKETS, "no column vmaf_motion"),
    ],
)
def test_nothing_to_train_on(make: Make, config: dict[str, object], buckets: BucketTable, says: str) -> None:
    with pytest.raises(OsoraError, match=says):
        make(buckets=buckets, **config)


def test_fingerprint(make: Make) -> None:
    assert make().fingerprint == make(seed=1).fingerprint != make({3: {"text": "else"}}).fingerprint
