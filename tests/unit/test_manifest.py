"""Reading a table of clips, and what is said when it is no such table."""

import math
from pathlib import Path

import pandas as pd
import pytest

from opensora_cli.data.manifest import read_manifest
from schemas.errors import OsoraError

ROWS = {
    "path": ["a.mp4", "sub/b.mp4"],
    "text": ["NA", 'a "quoted", caption'],
    "height": [64, 48],
    "width": [64, 80],
    "num_frames": [17, 1],
    "fps": [24.0, None],
}


@pytest.fixture(params=["csv", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return written(tmp_path, request.param)


def written(folder: Path, kind: str = "csv", **columns: list[object] | None) -> Path:
    frame = pd.DataFrame({name: values for name, values in {**ROWS, **columns}.items() if values is not None})
    path = folder / f"meta.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, index=False)
    return path


def test_rows(table: Path) -> None:
    manifest = read_manifest(table)
    assert len(manifest) == 2
    assert [manifest.text(row) for row in range(2)] == ROWS["text"]
    assert manifest.path(1) == str(table.parent / "sub/b.mp4")
    assert manifest.frames.tolist() == [17, 1]
    assert repr(manifest.fps_of(0)) == "24.0"
    assert math.isnan(manifest.fps_of(1))
    assert manifest.motion_of(0) is None


def test_whole_rates_stay_whole(tmp_path: Path) -> None:
    assert repr(read_manifest(written(tmp_path, fps=[24, 8])).fps_of(1)) == "8"


def test_absolute_paths_stay(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, path=["/data/a.mp4", "b.mp4"])).path(0) == "/data/a.mp4"


def test_motion_scores_under_either_name(tmp_path: Path) -> None:
    for name in ("vmaf_motion", "score_vmafmotion"):
        manifest = read_manifest(written(tmp_path, **{name: [3.5, None]}), motion=True)
        assert manifest.motion_of(0) == 3.5
        assert math.isnan(manifest.motion_of(1) or 0)


def test_fingerprint_changes_with_every_needed_column_and_no_other(tmp_path: Path) -> None:
    base = read_manifest(written(tmp_path)).fingerprint
    assert read_manifest(written(tmp_path, note=["x", "y"])).fingerprint == base
    changed = {
        "path": ["a.mp4", "c.mp4"],
        "text": ["", ""],
        "height": [64, 50],
        "width": [1, 80],
        "num_frames": [9, 9],
        "fps": [1.0, 2.0],
    }
    assert len({read_manifest(written(tmp_path, **{k: v})).fingerprint for k, v in changed.items()} | {base}) == 7


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"path": None}, r"no column path \(found: text, height.*Rename"),
        (
            {"num_frames": None, "fps": None},
            r"no column num_frames, fps .*`osora meta meta.csv with_meta.csv` adds them",
        ),
        ({"text": None}, "no column text, the captions"),
        ({"height": [64, None]}, "height of row 1 is empty .1 such rows.*osora meta"),
        ({"width": ["64", "wide"]}, "width of row 1 is 'wide', not a number"),
        ({"num_frames": [0, 17]}, "num_frames of row 0 is 0"),
        ({name: [] for name in ROWS}, "no rows"),
    ],
)
def test_a_bad_table(tmp_path: Path, columns: dict[str, list[object] | None], says: str) -> None:
    with pytest.raises(OsoraError, match=says):
        read_manifest(written(tmp_path, **columns))


def test_no_motion_score(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"no column vmaf_motion\. Add it, or set dataset\.vmaf = false"):
        read_manifest(written(tmp_path), motion=True)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"no such file.*osora meta"):
        read_manifest(tmp_path / "no.csv")


def test_no_table(tmp_path: Path) -> None:
    for name in ("empty.csv", "empty.parquet"):
        (tmp_path / name).touch()
        with pytest.raises(OsoraError, match="not a table of clips"):
            read_manifest(tmp_path / name)
