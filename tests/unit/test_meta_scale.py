"""Filling tables of any length: nothing lost, nothing held in memory, and a file that hangs costs itself alone."""

import csv
import fcntl
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from opensora_cli.data import work_pool
from opensora_cli.data.clip_details import clip_details
from opensora_cli.data.meta import errors_path, listing_path, partial_path, run_meta
from opensora_cli.data.meta_answers import AnswerLog
from opensora_cli.data.meta_columns import META_COLUMNS, wanted_columns
from opensora_cli.data.remote import protocol_of, require_protocol
from opensora_cli.data.table_stream import list_folder, open_table
from opensora_cli.data.work_pool import WorkerPool
from schemas.errors import OsoraError, UsageError
from tests.unit.broken_clips import make_set, obeying_permissions
from tests.unit.data_fakes import MEDIA, needs_media, numbered_mp4
from tests.unit.pool_tasks import hangs_on

KILLED = """
import os, signal, sys
from pathlib import Path
from opensora_cli.data.meta import run_meta

def report(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    run_meta(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, resume=True, report=report)
"""


def run_killed(table: Path, output: Path, at: int) -> int:
    """Run over the table in a process of its own that obeys permissions and kills itself at a row, if there is such a row."""
    command = [sys.executable, "-c", KILLED, str(table), str(output), str(at)]
    return subprocess.run(obeying_permissions(command), check=False).returncode


def test_many_clips_some_broken_killed_three_times(tmp_path: Path) -> None:
    table, broken = make_set(tmp_path, 240, every=20)
    whole, pieces = tmp_path / "whole.csv", tmp_path / "pieces.csv"
    assert run_killed(table, whole, -1) == 0
    for at in (60, 120, 180):
        assert run_killed(table, pieces, at) == -signal.SIGKILL
        assert not pieces.exists()
    assert run_killed(table, pieces, -1) == 0
    assert pieces.read_bytes() == whole.read_bytes()
    assert errors_path(pieces).read_bytes() == errors_path(whole).read_bytes()
    errors = pd.read_csv(errors_path(pieces))
    assert errors["row"].tolist() == sorted(broken)
    reasons = {broken[row]: reason for row, reason in zip(errors["row"], errors["reason"], strict=True)}
    assert reasons["no permission"] == "Permission denied"
    assert reasons["directory"] == "is a folder"
    assert len(reasons) == 6
    assert pd.read_csv(pieces)["text"].tolist() == [f'clip {row}, "quoted"' for row in range(240) if row not in broken]


def test_a_folder_is_listed_once_and_whole(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for name in ("b/2.mp4", "b.mp4", "a/x.MP4", "B/1.mp4"):
        (clips / name).parent.mkdir(parents=True, exist_ok=True)
        numbered_mp4(clips / name, 5)
    (clips / "folder.mp4").mkdir()
    os.mkfifo(clips / "pipe.mp4")
    (clips / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (clips / "loop").symlink_to(clips)
    output = tmp_path / "out.csv"
    assert run_killed(clips, output, 2) == -signal.SIGKILL
    numbered_mp4(clips / "later.mp4", 5)
    result = run_meta(clips, output, workers=1, resume=True)
    assert (result.written, result.unreadable, result.resumed) == (4, 3, 2)
    names = [str(Path(path).relative_to(clips)) for path in pd.read_csv(output)["path"]]
    assert names == ["B/1.mp4", "a/x.MP4", "b/2.mp4", "b.mp4"]
    reasons = pd.read_csv(errors_path(output))["reason"].tolist()
    assert reasons == ["is a folder", "No such file or directory", "is a folder or a device"]
    assert not listing_path(output).exists()


def test_the_order_of_a_folder_is_that_of_sorted_paths(tmp_path: Path) -> None:
    for name in ("a.mp4/x.mp4", "a-b.mp4", "a/z.mp4", "a b/c.mp4", "aa.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    list_folder(tmp_path / "clips", tmp_path / "list.csv", frozenset({".mp4"}))
    listed = [Path(path) for path in pd.read_csv(tmp_path / "list.csv")["path"]]
    assert listed == sorted((tmp_path / "clips").rglob("*.mp4"))


def test_a_hanging_task_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_pool, "WINDOW", 8)
    tasks = ["hang", *map(str, range(30)), "last"]
    taken: list[str] = []

    def given() -> Iterator[str]:
        for task in tasks:
            taken.append(task)
            yield task

    with WorkerPool(hangs_on, 2, lambda code: f"lost {code}", limit=4) as pool:
        answers = pool.map(given())
        first = next(answers)
        assert len(taken) <= 8, "no more is read than the window lets wait for the one that hangs"
        assert [first, *answers] == ["lost None", *(f"fine {task}" for task in tasks[1:])]


def test_a_file_whose_opening_hangs(tmp_path: Path) -> None:
    held = numbered_mp4(tmp_path / "held.mp4", 5)
    numbered_mp4(tmp_path / "fine.mp4", 5)
    (tmp_path / "in.csv").write_text("path\nheld.mp4\nfine.mp4\n")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(held, os.O_RDWR)
    try:
        # Whoever opens a file under a lease waits until its holder gives it up, which this one does not.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        result = run_meta(tmp_path / "in.csv", tmp_path / "out.csv", workers=1, timeout=4)
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
    assert (result.written, result.unreadable) == (1, 1)
    assert "held.mp4,not read within 4 seconds" in errors_path(tmp_path / "out.csv").read_text()


def rows_without_files(path: Path, rows: int, good: Path) -> Path:
    with path.open("w") as file:
        file.write("path,text\n")
        file.writelines(f"{good if row == 0 else f'gone-{row}.mp4'},{'caption ' * 40}{row}\n" for row in range(rows))
    return path


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_cli.data.table_stream.CSV_BLOCK_BYTES", 1 << 16)
    good = numbered_mp4(tmp_path / "good.mp4", 5)
    peaks = []
    for rows in (500, 1000, 4000):  # the first one imports what is needed
        table = rows_without_files(tmp_path / f"{rows}.csv", rows, good)
        arrow_before = pa.total_allocated_bytes()
        tracemalloc.start()
        run_meta(table, tmp_path / "out.csv", workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() - arrow_before < 1 << 20
    assert peaks[2] < 1.3 * peaks[1]


def test_types_of_a_parquet_table_stay(tmp_path: Path) -> None:
    numbered_mp4(tmp_path / "a.mp4", 5)
    columns = {
        "id": pa.array([7, None], pa.int32()),
        "path": pa.array(["a.mp4", None], pa.large_string()),
        "tags": pa.array([["x"], []], pa.list_(pa.string())),
        "height": pa.array(["?", "?"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    run_meta(tmp_path / "in.parquet", tmp_path / "out.parquet", workers=1)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.names == ["id", "path", "tags", "height", *(name for name in META_COLUMNS if name != "height")]
    assert table.schema.field("id").type == pa.int32()
    assert table.to_pylist()[0] | {"fps": 0} == {
        "id": 7,
        "path": "a.mp4",
        "tags": ["x"],
        "height": 32,
        "width": 48,
        "num_frames": 5,
        "fps": 0,
        "aspect_ratio": 32 / 48,
        "resolution": 32 * 48,
    }
    assert "1,,the cell path is empty" in errors_path(tmp_path / "out.parquet").read_text()


def test_a_table_changed_under_the_run_is_refused(tmp_path: Path) -> None:
    numbered_mp4(tmp_path / "a.mp4", 5)
    table = tmp_path / "in.csv"
    table.write_text("path\na.mp4\na.mp4\n")

    def report(done: int, total: int) -> None:
        if done == total:
            table.write_text("path\na.mp4\nb.mp4\n")

    with pytest.raises(OsoraError, match="its paths are not those that it had when the run began"):
        run_meta(table, tmp_path / "out.csv", workers=1, report=report)
    assert not (tmp_path / "out.csv").exists()


def test_resuming_with_other_columns_is_refused(tmp_path: Path) -> None:
    log = AnswerLog(partial_path(tmp_path / "out.csv"), columns=META_COLUMNS, rows=1, sha256="x")
    with log:
        assert log.begin(resume=False) == 0
        log.add([1])
    other = AnswerLog(log.path, columns=(*META_COLUMNS, "codec"), rows=1, sha256="x")
    with pytest.raises(OsoraError, match="or asked for other columns"):
        other.begin(resume=True)


def test_a_full_disk_is_said() -> None:
    log = AnswerLog(Path("/dev/full"), columns=META_COLUMNS, rows=2, sha256="x")
    with pytest.raises(OsoraError, match=r"cannot write /dev/full: No space left on device"):
        log.begin(resume=False)


def test_a_damaged_answer_is_named(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "log", columns=META_COLUMNS, rows=2, sha256="x")
    with log:
        log.begin(resume=False)
        log.add("reason")
        log.add([1])
    log.path.write_bytes(log.path.read_bytes().replace(b"[1]", b"\0\0\0"))
    with pytest.raises(OsoraError, match="the answer to row 1 is damaged"):
        list(log.answers())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,path\na,b\n", "two columns are called path"),
        ("path,text\na,b,c\n", "Expected 2 columns, got 3"),
        ("", "the file is empty"),
    ],
)
def test_a_broken_csv_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(OsoraError, match=says):
        list(open_table(tmp_path / "in.csv").parts())


def test_more_columns_of_made_clips(tmp_path: Path) -> None:
    numbered_mp4(tmp_path / "a.mp4", 6, fps=8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "still.jpg", exif=exif)
    (tmp_path / "in.csv").write_text("path\na.mp4\nstill.jpg\n")
    columns = wanted_columns("rotation, codec,pixel_format,duration,has_audio,variable_frame_rate")
    run_meta(tmp_path / "in.csv", tmp_path / "out.csv", workers=1, columns=columns)
    with (tmp_path / "out.csv").open() as file:
        clip, still = list(csv.DictReader(file))
    assert list(clip) == ["path", *columns]
    assert [clip[name] for name in columns[6:]] == ["h264", "yuv420p", "0.75", "False", "0", "False"]
    assert [still[name] for name in columns[6:]] == ["jpeg", "RGB", "", "False", "90", "False"]


@needs_media
@pytest.mark.parametrize(
    ("name", "codec", "pixels", "rotation", "has_audio"),
    [
        ("av1_video.mkv", "av1", "yuv420p", 0, False),
        ("nasa_13013.mp4", "h264", "yuv420p", 0, True),
        ("nasa_13013_rotated.mp4", "h264", "yuv420p", 270, False),
        ("h265_10bits.mp4", "hevc", "yuv420p10le", 0, False),
    ],
)
def test_more_columns_of_real_clips(name: str, codec: str, pixels: str, rotation: int, has_audio: bool) -> None:
    found = clip_details(str(MEDIA / name))
    assert (found.codec, found.pixel_format, found.rotation, found.has_audio) == (codec, pixels, rotation, has_audio)


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no column colour\. There are codec, pixel_format"):
        wanted_columns("codec,colour")


def test_remote_paths_through_fsspec(tmp_path: Path) -> None:
    numbered_mp4(tmp_path / "a.mp4", 5)
    url = f"file://{tmp_path}/a.mp4"
    (tmp_path / "in.csv").write_text(f"path\n{url}\nfile://{tmp_path}/gone.mp4\n")
    (tmp_path / "other").mkdir()
    result = run_meta(tmp_path / "in.csv", tmp_path / "other" / "out.csv", workers=1)
    assert (result.written, result.unreadable, result.rebased) == (1, 1, False)
    table = pd.read_csv(tmp_path / "other" / "out.csv")
    assert (table["path"].tolist(), table["num_frames"].tolist()) == ([url], [5])
    assert "gone.mp4,No such file or directory" in errors_path(tmp_path / "other" / "out.csv").read_text()


def test_a_protocol_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert protocol_of("s3://bucket/a.mp4") == "s3"
    assert protocol_of("/a/b.mp4") is None
    assert protocol_of("odd name: //b.mp4") is None
    with pytest.raises(UsageError, match=r"zz://: fsspec knows no such protocol"):
        require_protocol("zz")
    monkeypatch.setattr("opensora_cli.data.remote.find_spec", lambda _: None)
    (tmp_path / "in.csv").write_text("path\ns3://bucket/a.mp4\n")
    with pytest.raises(UsageError, match=r"s3:// paths are read through fsspec: pip install fsspec s3fs"):
        run_meta(tmp_path / "in.csv", tmp_path / "out.csv", workers=1)
