"""Shards: every row once, equal bytes for equal input, nothing left of a run that failed."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opensora_cli.data import shard_order, table_stream
from opensora_cli.data.shard import ShardSizes, shard_table
from schemas.errors import OsoraError, UsageError


def csv_of(path: Path, rows: int) -> Path:
    lines = [f'clips/{row}.mp4,"a, ""caption"" {row}",{48 + row},64,17,24,{row:03d}' for row in range(rows)]
    path.write_text("\n".join(["path,text,height,width,num_frames,fps,id", *lines]) + "\n")
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return [row for shard in manifest["shards"] for row in pq.read_table(folder / shard["file"]).to_pylist()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    source = csv_of(tmp_path / "meta.csv", 10)
    manifest = shard_table(source, tmp_path / "deep" / "out", ShardSizes(rows_per_shard=4))
    folder = tmp_path / "deep" / "out"
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["rows"] == 10
    assert [shard["rows"] for shard in manifest["shards"]] == [4, 4, 2]
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        *(f"shard-{number:05d}.parquet" for number in range(3)),
    ]
    for shard in manifest["shards"]:
        assert shard["sha256"] == hashlib.sha256((folder / shard["file"]).read_bytes()).hexdigest()
    assert (folder / manifest["root"] / "clips/3.mp4").resolve() == (tmp_path / "clips" / "3.mp4").resolve()
    assert manifest["source"] == {
        "name": "meta.csv",
        "bytes": source.stat().st_size,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    assert manifest["columns"] == {
        "path": "string",
        "text": "string",
        "height": "int64",
        "width": "int64",
        "num_frames": "int64",
        "fps": "int64",
        "id": "string",
    }
    assert rows_of(folder)[9] == {
        "path": "clips/9.mp4",
        "text": 'a, "caption" 9',
        "height": 57,
        "width": 64,
        "num_frames": 17,
        "fps": 24,
        "id": "009",
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_row_groups_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_stream, "CSV_BLOCK_BYTES", 1 << 16)
    shard_table(csv_of(tmp_path / "meta.csv", 9000), tmp_path / "out", ShardSizes(shards=1))
    footer = pq.read_metadata(tmp_path / "out" / "shard-00000.parquet")
    assert [footer.row_group(number).num_rows for number in range(footer.num_row_groups)] == [4096, 4096, 808]


@pytest.mark.parametrize("shuffle", [None, 3])
def test_equal_input_gives_equal_bytes(tmp_path: Path, shuffle: int | None) -> None:
    source = csv_of(tmp_path / "meta.csv", 50)
    for name in ("a", "b"):
        shard_table(source, tmp_path / name, ShardSizes(shards=3), shuffle=shuffle)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_shuffling_loses_nothing_and_follows_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = csv_of(tmp_path / "meta.csv", 400)
    plain = shard_table(source, tmp_path / "plain", ShardSizes(shards=1))
    in_order = rows_of(tmp_path / "plain")
    for seed, name in ((1, "one"), (2, "two")):
        shard_table(source, tmp_path / name, ShardSizes(shards=4), shuffle=seed)
        shuffled = rows_of(tmp_path / name)
        assert shuffled != in_order
        assert sorted(shuffled, key=lambda row: row["id"]) == in_order
    assert rows_of(tmp_path / "one") != rows_of(tmp_path / "two")
    monkeypatch.setattr(shard_order, "PILE_ROWS", 64)
    shard_table(source, tmp_path / "piles", ShardSizes(shards=4), shuffle=1)
    assert bytes_of(tmp_path / "piles") == bytes_of(tmp_path / "one")
    assert plain["shuffle"] is None


def test_types_of_parquet_stay(tmp_path: Path) -> None:
    columns = {"path": pa.array(["a", None]), "id": pa.array([1, 2], pa.uint8()), "tags": pa.array([["x"], []])}
    pq.write_table(pa.table(columns), tmp_path / "meta.parquet")
    manifest = shard_table(tmp_path / "meta.parquet", tmp_path / "out", ShardSizes(shards=2), shuffle=5)
    assert manifest["columns"] == {"path": "string", "id": "uint8", "tags": "list<element: string>"}
    assert sorted(rows_of(tmp_path / "out"), key=lambda row: row["id"]) == pa.table(columns).to_pylist()


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["24", "30"], "int64", [24, 30]),
        (["24", "29.97"], "double", [24.0, 29.97]),
        (["24", ""], "double", [24.0, None]),
        (["nan", "24"], "double", [None, 24.0]),
    ],
)
def test_numbers_of_a_csv(tmp_path: Path, cells: list[str], kind: str, values: list[float | None]) -> None:
    (tmp_path / "in.csv").write_text("path,fps\n" + "".join(f"a.mp4,{cell}\n" for cell in cells))
    manifest = shard_table(tmp_path / "in.csv", tmp_path / "out", ShardSizes(shards=1))
    assert manifest["columns"]["fps"] == kind
    assert [row["fps"] for row in rows_of(tmp_path / "out")] == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,fps\na.mp4,24\nb.mp4,fast\n", "fps of row 1 is 'fast', not a number"),
        ("path,has_audio\na.mp4,perhaps\n", "has_audio of row 0 is 'perhaps', not true or false"),
        ("path\n", "nothing to cut into shards"),
        ("path\na,b\n", "Expected 1 columns, got 2"),
    ],
)
def test_a_bad_table_leaves_nothing(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(OsoraError, match=says):
        shard_table(tmp_path / "in.csv", tmp_path / "out", ShardSizes(shards=1))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = csv_of(tmp_path / "meta.csv", 3)
    folder = tmp_path / "out"
    folder.mkdir()
    shard_table(source, folder, ShardSizes(shards=1))  # an empty folder is as good as none
    before = bytes_of(folder)
    with pytest.raises(OsoraError, match="is there already, and shards are never overwritten"):
        shard_table(source, folder, ShardSizes(shards=2))
    assert bytes_of(folder) == before
    with pytest.raises(OsoraError, match="there is no folder"):
        shard_table(source, tmp_path / "no" / "out", ShardSizes(shards=2))


def test_more_shards_than_rows(tmp_path: Path) -> None:
    assert ShardSizes(shards=3).of(8) == [3, 3, 2]
    with pytest.raises(UsageError, match="--shards 4: the table has 3 rows"):
        shard_table(csv_of(tmp_path / "meta.csv", 3), tmp_path / "out", ShardSizes(shards=4))


def test_a_table_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    source = csv_of(tmp_path / "meta.csv", 4)

    def report(done: int, total: int) -> None:
        if done == total:
            csv_of(source, 5)

    with pytest.raises(OsoraError, match="was changed while it was read"):
        shard_table(source, tmp_path / "out", ShardSizes(shards=2), report=report)
    assert not (tmp_path / "out").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from opensora_cli.data.shard import ShardSizes, shard_table

def report(done, total):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)

shard_table(Path("meta.csv"), Path("out"), ShardSizes(shards=2), report=report)
"""


def test_a_killed_run_leaves_no_folder_and_is_no_obstacle(tmp_path: Path) -> None:
    source = csv_of(tmp_path / "meta.csv", 4)
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    shard_table(source, tmp_path / "out", ShardSizes(shards=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta.csv", "out"]
