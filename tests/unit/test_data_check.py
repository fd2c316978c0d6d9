"""What `osora data check` finds, on tables in which everything that can be wrong is."""

import json
from pathlib import Path

import pytest
from PIL import Image

from opensora_cli.data.bucket_chart import draw_chart
from opensora_cli.data.data_check import SHOWN, BucketFill, DataReport, check_data
from opensora_cli.data.data_check_report import report_json, report_lines
from schemas.data import BucketTable, DatasetConfig
from schemas.errors import OsoraError

BUCKETS: BucketTable = {"64px": {33: (1.0, 2), 17: (1.0, 4)}, "128px": {17: (1.0, 1)}}
HEADER = "path,text,height,width,num_frames,fps,mood"
ROWS = [
    "ok-0.mp4,a red square,64,64,40,24,x",  # 64px, 33 frames; 24 fps with a limit of 12 leave 20: 17 frames
    "ok-1.mp4,a blue circle,64,64,40,12,x",
    "ok-0.mp4,a duplicate,64,64,34,10,x",
    "tiny.mp4,too small,8,8,40,12,x",
    "short.mp4,too short,64,64,5,12,x",
    "fast.mp4,too short when frames are skipped,64,64,20,24,x",
    "folder.mp4,,64,64,17,8,x",
    "empty.mp4,nothing in it,64,64,17,8,x",
    "gone.mp4,not there,64,64,17,8,x",
]


def table_of(folder: Path, rows: list[str] = ROWS) -> Path:
    for name in ("ok-0", "ok-1", "tiny", "short", "fast"):
        (folder / f"{name}.mp4").write_bytes(b"something")
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    path = folder / "meta.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def checked(path: Path, files: int | None = None, fps_max: int | None = 12) -> DataReport:
    dataset = DatasetConfig(data_path=str(path), fps_max=fps_max)
    return check_data(dataset, BUCKETS, compression=4, seed=0, files=files)


def test_everything_that_is_wrong(tmp_path: Path) -> None:
    report = checked(table_of(tmp_path))
    assert report.rows == report.looked_at == 9
    assert report.columns["num_frames"] == "string"
    assert report.missing.count == 3
    assert [line.rsplit(": ", 1)[1] for line in report.missing.first] == [
        "is no file",
        "is empty",
        "No such file or directory",
    ]
    assert report.duplicates.first == [f"row 2: {tmp_path}/ok-0.mp4 is also row 0"]
    assert report.no_caption.first == [f"row 6: {tmp_path}/folder.mp4"]
    assert report.captions == {"shortest": 0, "median": 11, "95 %": 33, "longest": 33}
    fit = report.fit
    assert (fit.too_small, fit.too_short, fit.too_fast, fit.not_drawn) == (1, 1, 1, 0)
    assert [(bucket.name, bucket.clips, bucket.batches) for bucket in fit.buckets] == [
        ("64px 33 frames 1:1", 2, 1),
        ("64px 17 frames 1:1", 4, 1),
    ]
    assert fit.empty == ("128px 17 frames",)
    assert report.problems == ["3 of 9 files cannot be read"]


def test_no_limit_makes_nothing_too_fast(tmp_path: Path) -> None:
    fit = checked(table_of(tmp_path), fps_max=None).fit
    assert (fit.too_short, fit.too_fast) == (1, 0)
    assert [bucket.clips for bucket in fit.buckets] == [3, 4]


def test_no_batch_is_a_problem(tmp_path: Path) -> None:
    report = checked(table_of(tmp_path, ROWS[5:6]), fps_max=None)
    assert report.problems == ["no bucket has enough clips for one batch"]
    text = "\n".join(line for _, line in report_lines(report))
    assert "64px 17 frames 1:1          1       4         0          1  no batch" in text
    assert "every clip fits a bucket" in text


def test_a_sample_of_files(tmp_path: Path) -> None:
    rows = [f"gone-{number}.mp4,x,64,64,17,8,x" for number in range(40)]
    report = checked(table_of(tmp_path, rows), files=30)
    assert (report.looked_at, report.missing.count, len(report.missing.first)) == (30, 30, SHOWN)
    assert report == checked(tmp_path / "meta.csv", files=30)
    assert checked(tmp_path / "meta.csv", files=0).missing.count == 0


def test_the_report_says_it_all(tmp_path: Path) -> None:
    report = checked(table_of(tmp_path))
    text = "\n".join(line for _, line in report_lines(report))
    for part in (
        "columns   path (string), text (string), height (string)",
        "not read  mood",
        "1 rows have no caption",
        "1 rows name a file that an earlier row has",
        "3 of 9 files cannot be read",
        "no clip at all: 128px 17 frames",
        "3 of 9 clips (33.3%) are in no bucket:",
        "1   11.1%  too short once dataset.fps_max skips frames",
    ):
        assert part in text
    again = json.loads(json.dumps(report_json(report)))
    assert again["fit"]["buckets"][0] == {"name": "64px 33 frames 1:1", "clips": 2, "batch_size": 2, "batches": 1}
    assert again["problems"] == report.problems


def test_no_table_is_said() -> None:
    with pytest.raises(OsoraError, match=r"dataset\.data_path is not set"):
        check_data(DatasetConfig(), BUCKETS, compression=16, seed=0, files=0)


def test_the_chart_has_a_bar_for_every_bucket(tmp_path: Path) -> None:
    fills = (BucketFill("256px 17 frames 16:9", 100, 8), BucketFill("256px 17 frames 1:1", 5, 8))
    draw_chart(fills, "meta.csv", tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 20) or ()}
    full, rest = colours[61, 116, 196], colours[232, 143, 54]
    assert 96 / 100 * 0.9 < full / (full + rest * 4 / 9) < 1
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]
