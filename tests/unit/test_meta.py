"""Filling a table: right numbers, every file accounted for, nothing half written."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import pandas as pd
import pytest
from PIL import Image

from opensora_cli.data import probe as probe_module
from opensora_cli.data.display_matrix import quarter_turned
from opensora_cli.data.meta import errors_path, partial_path, run_meta
from opensora_cli.data.meta_worker import Lost
from opensora_cli.data.probe import probe
from opensora_cli.data.work_pool import WorkerPool
from schemas.errors import OsoraError, UsageError
from tests.unit.data_fakes import CLIPS, MEDIA, needs_media, numbered_mp4
from tests.unit.pool_tasks import dies_on

META = ["height", "width", "num_frames", "fps", "aspect_ratio", "resolution"]


@needs_media
@pytest.mark.parametrize("name", CLIPS)
def test_real_clips_as_a_full_decode_sees_them(name: str) -> None:
    info = probe(str(MEDIA / name))
    got = {key: getattr(info, key) for key in META}
    assert got == json.loads((MEDIA / "expected_meta.json").read_text())[name]


@needs_media
@pytest.mark.parametrize("name", CLIPS)
def test_every_way_of_probing_agrees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    want = probe(str(MEDIA / name))
    monkeypatch.setattr(probe_module, "header_counts", lambda *_: False)
    assert probe(str(MEDIA / name)) == want
    monkeypatch.setattr(probe_module, "matroska_upright", lambda *_: False)
    assert probe(str(MEDIA / name)) == want
    monkeypatch.setattr(probe_module, "_by_packets", lambda *_: None)
    assert probe(str(MEDIA / name)) == want


@needs_media
def test_rotation_from_the_header() -> None:
    assert quarter_turned(str(MEDIA / "nasa_13013_rotated.mp4"), 1) is True
    assert quarter_turned(str(MEDIA / "bikes.mp4"), 1) is False
    assert quarter_turned(str(MEDIA / "bikes.mp4"), 7) is None


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_of_any_quarter(tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(numbered_mp4(tmp_path / "plain.mp4"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    info = probe(str(path))
    assert (info.height, info.width) == ((48, 32) if degrees % 180 else (32, 48))
    assert quarter_turned(str(path), 1) is bool(degrees % 180)


def test_a_file_cut_short_counts_what_is_left(tmp_path: Path) -> None:
    path = numbered_mp4(tmp_path / "a.mp4")
    moved = tmp_path / "b.mp4"
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert probe(str(moved)).num_frames == 20
    moved.write_bytes(moved.read_bytes()[:-60])
    assert 0 < probe(str(moved)).num_frames < 20


def folder_of_clips(folder: Path, count: int = 6) -> Path:
    clips = folder / "clips"
    clips.mkdir()
    for number in range(count):
        numbered_mp4(clips / f"{number}.mp4", frames=5 + number)
    return clips


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder(tmp_path: Path, suffix: str) -> None:
    clips = folder_of_clips(tmp_path, 3)
    (clips / "below").mkdir()
    Image.new("RGB", (30, 20)).save(clips / "below" / "still.JPG")
    (clips / "notes.txt").write_text("no clip")
    output = tmp_path / f"meta.{suffix}"
    result = run_meta(clips, output, workers=2)
    table = pd.read_csv(output) if suffix == "csv" else pd.read_parquet(output)
    assert list(table.columns) == ["path", *META]
    assert table["path"].tolist() == [str(clips / name) for name in ("0.mp4", "1.mp4", "2.mp4", "below/still.JPG")]
    assert table["num_frames"].tolist() == [5, 6, 7, 1]
    assert table["fps"].isna().tolist() == [False, False, False, True]
    assert table["height"].tolist() == [32, 32, 32, 20]
    assert result.written == 4
    assert not errors_path(output).exists()
    assert not partial_path(output).exists()


def test_columns_and_odd_cells_stay_as_they_are(tmp_path: Path) -> None:
    folder_of_clips(tmp_path, 2)
    (tmp_path / "in.csv").write_text('id,path,text,fps\n007,clips/1.mp4,"NA, ""quoted""",1\n08,clips/0.mp4,,2\n')
    run_meta(tmp_path / "in.csv", tmp_path / "out.csv", workers=1)
    table = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == [
        "id",
        "path",
        "text",
        "fps",
        "height",
        "width",
        "num_frames",
        "aspect_ratio",
        "resolution",
    ]
    assert table["id"].tolist() == ["007", "08"]
    assert table["path"].tolist() == ["clips/1.mp4", "clips/0.mp4"]
    assert table["text"].tolist() == ['NA, "quoted"', ""]
    assert table["fps"].tolist() == ["8.0", "8.0"]


def test_relative_paths_follow_the_table_to_another_folder(tmp_path: Path) -> None:
    folder_of_clips(tmp_path, 1)
    (tmp_path / "in.csv").write_text("path\nclips/0.mp4\n")
    (tmp_path / "other").mkdir()
    result = run_meta(tmp_path / "in.csv", tmp_path / "other" / "out.csv", workers=1)
    assert result.rebased
    assert pd.read_csv(tmp_path / "other" / "out.csv")["path"].tolist() == ["../clips/0.mp4"]


def test_unreadable_files_are_listed_and_left_out(tmp_path: Path) -> None:
    clips = folder_of_clips(tmp_path, 2)
    (clips / "1a.mp4").write_bytes(b"")
    (clips / "1b.mp4").write_text("text")
    (clips / "1c.mp4").write_bytes((clips / "1.mp4").read_bytes()[:200])
    (tmp_path / "in.csv").write_text(
        "path\n" + "".join(f"clips/{n}.mp4\n" for n in ("0", "1a", "gone", "1b", "1", "1c"))
    )
    output = tmp_path / "out.csv"
    result = run_meta(tmp_path / "in.csv", output, workers=2)
    assert pd.read_csv(output)["path"].tolist() == ["clips/0.mp4", "clips/1.mp4"]
    errors = pd.read_csv(errors_path(output))
    assert errors["row"].tolist() == [1, 2, 3, 5]
    assert errors["path"].tolist() == ["clips/1a.mp4", "clips/gone.mp4", "clips/1b.mp4", "clips/1c.mp4"]
    assert errors["reason"].str.len().min() > 5
    assert result.unreadable == 4

    (tmp_path / "in.csv").write_text("path\nclips/0.mp4\n")
    run_meta(tmp_path / "in.csv", output, workers=1)
    assert not errors_path(output).exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,text\na,b\n", r"no column path \(found: file, text\). Rename"),
        ("path\n", "no rows"),
        ("path\nnope.mp4\n", "none of 1 files can be read; the first: nope.mp4: No such file or directory"),
    ],
)
def test_a_bad_input(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(OsoraError, match=says):
        run_meta(tmp_path / "in.csv", tmp_path / "out.csv", workers=1)
    assert not (tmp_path / "out.csv").exists()


def test_a_bad_output_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has to end in .csv or .parquet"):
        run_meta(tmp_path, tmp_path / "out.txt", workers=1)


def test_a_folder_without_clips(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match="no video or image below this folder"):
        run_meta(tmp_path, tmp_path / "out.csv", workers=1)


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


def test_killed_and_resumed_is_the_same_as_uninterrupted(tmp_path: Path) -> None:
    clips = folder_of_clips(tmp_path, 12)
    (clips / "3a.mp4").write_text("no clip")
    want, output = tmp_path / "want.csv", tmp_path / "out.csv"
    run_meta(clips, want, workers=2)
    for upto in (4, 7):
        done = subprocess.run([sys.executable, "-c", KILLED, clips, output, str(upto)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not output.exists()
        with partial_path(output).open("a") as file:
            file.write("[32, 48, 5")  # a line that the kill cut short
    seen: list[int] = []
    result = run_meta(clips, output, workers=2, resume=True, report=lambda done, _: seen.append(done))
    assert result.resumed == 7
    assert seen == [7, 8, 9, 10, 11, 12, 13]
    assert output.read_bytes() == want.read_bytes()
    assert errors_path(output).read_bytes() == errors_path(want).read_bytes()
    assert not partial_path(output).exists()


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    clips, output = folder_of_clips(tmp_path, 2), tmp_path / "out.csv"
    partial_path(output).write_text('{"files": 1}\n{"row": 0, "answer": {"error": "old"}}\n')
    assert run_meta(clips, output, workers=1).written == 2


def test_resuming_another_list_is_refused(tmp_path: Path) -> None:
    clips, output = folder_of_clips(tmp_path, 2), tmp_path / "out.csv"
    partial_path(output).write_text('{"files": 1, "sha256": ""}\n')
    with pytest.raises(OsoraError, match="was on another list of files"):
        run_meta(clips, output, workers=1, resume=True)


def test_a_crash_costs_one_task(capfd: pytest.CaptureFixture[str]) -> None:
    tasks = ["a", "signal", "b", "c", "exit", "d", *map(str, range(20)), "signal"]
    with WorkerPool(dies_on, 2, lambda code: f"died {code}") as pool:
        answers = list(pool.map(tasks))
    deaths = {"signal": f"died {-signal.SIGSEGV}", "exit": "died 3"}
    assert answers == [deaths.get(task, f"fine {task}") for task in tasks]


def test_a_crash_has_a_reason() -> None:
    lost = Lost(limit=2.5)
    assert lost(-signal.SIGSEGV) == "the decoder crashed on it (SIGSEGV)"
    assert "exit code 3" in str(lost(3))
    assert lost(None) == "not read within 2.5 seconds (--timeout)"
