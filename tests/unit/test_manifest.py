"""Reading a table of clips, and what is said when it is no such table."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opensora_cli.data.manifest import SLOW_GROUP, read_manifest
from opensora_cli.data.row_texts import ParquetTexts
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
        ({"num_frames": [0, 17]}, "num_frames of row 0 is 0, not a size"),
        ({"num_frames": [17.5, 17]}, "num_frames of row 0 is 17.5, not a size"),
        ({"fps": ["fast", "24"]}, "fps of row 0 is 'fast', not a number"),
        ({"path": ["a.mp4", None]}, "path of row 1 is empty"),
        ({name: [] for name in ROWS}, "no rows"),
    ],
)
def test_a_bad_table(tmp_path: Path, columns: dict[str, list[object] | None], says: str) -> None:
    with pytest.raises(OsoraError, match=says):
        read_manifest(written(tmp_path, **columns))


def test_no_motion_score(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"no column vmaf_motion\. Add it, or set dataset\.vmaf = false"):
        read_manifest(written(tmp_path), motion=True)


def test_a_csv_and_a_parquet_of_the_same_cells_are_the_same_data(tmp_path: Path) -> None:
    """Cut into parts or not: the fingerprint is of the cells."""
    rows = 1000
    many: dict[str, list[object]] = {
        "path": [f"{n}.mp4" for n in range(rows)],
        "text": ["" if n % 7 == 0 else f'zwölf,\n{n}"' for n in range(rows)],
        "height": [64 + n % 3 for n in range(rows)],
        "width": [64] * rows,
        "num_frames": list(range(1, rows + 1)),
        "fps": [None if n % 5 == 0 else 23.976 for n in range(rows)],
    }
    one, two = (read_manifest(written(tmp_path, kind, **many)) for kind in ("csv", "parquet"))
    pq.write_table(pa.table(many), tmp_path / "small.parquet", row_group_size=77)
    three = read_manifest(tmp_path / "small.parquet")
    assert one.fingerprint == two.fingerprint == three.fingerprint
    for manifest in (one, two, three):
        assert manifest.frames.tolist() == many["num_frames"]
        assert np.isnan(manifest.fps).sum() == 200
        for row in (999, 0, 500, 77, 76):
            assert manifest.text(row) == many["text"][row]
            assert manifest.path(row) == str(tmp_path / f"{row}.mp4")
    assert len({value.dtype for value in (one.heights, one.widths, one.frames)} | {np.dtype(np.int32)}) == 1


def test_a_csv_as_other_programs_write_it(tmp_path: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_bytes(
        "\ufeffpath,text,height,width,num_frames,fps\r\n".encode()
        + 'a.mp4,"two\r\nlines, ünï",64,64,17,8\r\n\r\nb.mp4,plain,64,64,9,8'.encode()
    )
    manifest = read_manifest(path)
    assert [manifest.text(row) for row in range(2)] == ["two\r\nlines, ünï", "plain"]
    assert manifest.frames.tolist() == [17, 9]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a.mp4,one,64,64,17\n", "line 2: not a table of clips: 5 cells where the header has 6"),
        ("a.mp4,one,64,64,17,8\na.mp4,one, two,64,64,17,8\n", "line 3: .* 7 cells where the header has 6"),
        ('a.mp4,"one,64,64,17,8\n', "not a table of clips: unexpected end of data"),
        ('a.mp4,"one" more,64,64,17,8\n', "line 2: not a table of clips: ',' expected after"),
    ],
)
def test_a_broken_csv(tmp_path: Path, body: str, says: str) -> None:
    path = tmp_path / "meta.csv"
    path.write_text("path,text,height,width,num_frames,fps\n" + body)
    with pytest.raises(OsoraError, match=says):
        read_manifest(path)


def test_a_csv_that_changes_under_a_job(tmp_path: Path) -> None:
    path = written(tmp_path)
    manifest = read_manifest(path)
    written(tmp_path)
    assert manifest.text(0) == "NA"  # written anew, with the same rows
    written(tmp_path, text=["other", "captions"])
    with pytest.raises(OsoraError, match="row 0 is not what it was when the job started"):
        manifest.text(0)
    path.unlink()
    with pytest.raises(OsoraError, match="row 1 is not what it was"):
        manifest.text(1)


def shards(folder: Path, sizes: tuple[int, ...] = (5, 3), **changes: Any) -> Path:
    """Shards as `osora shard` writes them, of clips that lie in the folder above."""
    folder.mkdir()
    files, first = [], 0
    for number, rows in enumerate(sizes):
        table = pa.table(
            {
                "path": [f"{row}.mp4" for row in range(first, first + rows)],
                "text": [f"clip {row}" for row in range(first, first + rows)],
                **{name: np.full(rows, 64) for name in ("height", "width")},
                "num_frames": np.arange(first + 1, first + rows + 1),
                "fps": np.full(rows, 24),
            }
        )
        name = f"shard-{number:05d}.parquet"
        pq.write_table(table, folder / name, row_group_size=2)
        files.append({"file": name, "rows": rows, "sha256": f"{number}" * 64})
        first += rows
    record = {"format": 1, "columns": {}, "rows": first, "root": "..", "shards": files, "source": {}, **changes}
    (folder / "manifest.json").write_text(json.dumps(record))
    return folder / "manifest.json"


def test_shards(tmp_path: Path) -> None:
    path = shards(tmp_path / "shards")
    for manifest in (read_manifest(path), read_manifest(path.parent)):
        assert len(manifest) == 8
        assert manifest.frames.tolist() == list(range(1, 9))
        assert [manifest.text(row) for row in (7, 0, 5, 4)] == ["clip 7", "clip 0", "clip 5", "clip 4"]
        assert Path(manifest.path(6)).resolve() == tmp_path / "6.mp4"
        assert repr(manifest.fps_of(3)) == "24"
    other = json.loads(path.read_text())
    other["shards"][1]["sha256"] = "f" * 64
    path.write_text(json.dumps(other))
    assert read_manifest(path).fingerprint != manifest.fingerprint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "shards of format 2; this version of osora reads format 1"),
        ({"rows": 9}, "it speaks of 9 rows and its 2 shards of 8"),
        ({"shards": [{"file": "shard-00009.parquet", "rows": 8, "sha256": ""}]}, "shard-00009.parquet is missing"),
        ({"shards": [{"file": "shard-00001.parquet", "rows": 8, "sha256": ""}]}, "has 3 rows, not 8"),
        ({"shards": None}, "not the manifest of `osora shard`"),
        ({"shards": [], "rows": 0}, "0 shards"),
    ],
)
def test_a_bad_manifest(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OsoraError, match=rf"manifest.json: not a table of clips: .*{says}"):
        read_manifest(shards(tmp_path / "shards", **changes))


def test_shards_of_different_columns(tmp_path: Path) -> None:
    path = shards(tmp_path / "shards")
    second = path.with_name("shard-00001.parquet")
    pq.write_table(pq.read_table(second).drop(["fps"]), second)
    with pytest.raises(OsoraError, match=r"shard-00001\.parquet: not a table of clips: no column fps"):
        read_manifest(path)


def test_a_shard_that_is_damaged_under_a_job(tmp_path: Path) -> None:
    path = shards(tmp_path / "shards")
    manifest = read_manifest(path)
    second = path.with_name("shard-00001.parquet")
    second.write_bytes(b"\0" * second.stat().st_size)
    assert manifest.text(4) == "clip 4"
    with pytest.raises(OsoraError, match=r"shard-00001.parquet: row group 0 cannot be read"):
        manifest.text(5)


def test_row_groups_are_kept_within_bounds(tmp_path: Path) -> None:
    path = shards(tmp_path / "shards", sizes=(40, 40))
    files = sorted(path.parent.glob("*.parquet"))
    one = ParquetTexts(files)
    group_bytes = pq.ParquetFile(files[0]).read_row_group(0, columns=["path", "text"]).nbytes
    few = ParquetTexts(files, cache_bytes=3 * group_bytes)
    for row in [*range(0, 80, 3), 79, 0]:
        assert few.read(row) == one.read(row)
        assert 1 <= len(few._kept) <= 4
        assert few._kept_bytes == sum(table.nbytes for table in few._kept.values())
    assert len(one._kept) > 20


def test_large_row_groups_are_said(tmp_path: Path) -> None:
    rows = SLOW_GROUP + 10
    sizes = dict.fromkeys(("height", "width", "num_frames"), np.full(rows, 64))
    table = pa.table({"path": ["a.mp4"] * rows, "text": ["a"] * rows, **sizes, "fps": np.full(rows, 24.0)})
    for size, lines in ((SLOW_GROUP + 5, 1), (4096, 0)):
        pq.write_table(table, tmp_path / "meta.parquet", row_group_size=size)
        assert len(read_manifest(tmp_path / "meta.parquet").warnings()) == lines


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"no such file.*osora meta"):
        read_manifest(tmp_path / "no.csv")


def test_no_table(tmp_path: Path) -> None:
    for name in ("empty.csv", "empty.parquet"):
        (tmp_path / name).touch()
        with pytest.raises(OsoraError, match="not a table of clips"):
            read_manifest(tmp_path / name)
