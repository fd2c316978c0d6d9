"""Cutting a table into numbered parquet shards with a manifest: the job behind `osora shard`.

Streaming: a csv is read twice, parquet once, a few thousand rows at a time. Equal input and equal options give equal bytes.
The folder is made aside and renamed when the manifest, its last file, is written: a crash leaves no OUTDIR.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from opensora_cli.data.shard_order import shuffled
from opensora_cli.data.shard_types import CsvTypes, typed_parts
from opensora_cli.data.table_stream import TableStream, is_parquet, open_table
from opensora_cli.files import sync_folder, write_text
from schemas.errors import OsoraError, UsageError

FORMAT = 1
GROUP_ROWS = 4096
"""Rows of a row group: what a reader loads to look up one caption."""


@dataclass(frozen=True)
class ShardSizes:
    """How the rows are shared out: so many in every shard (the last one takes what is left), or among so many shards."""

    rows_per_shard: int | None = None
    shards: int | None = None

    def of(self, rows: int) -> list[int]:
        """Return the rows of each shard. Raises UsageError for more shards than rows."""
        if self.rows_per_shard:
            full, rest = divmod(rows, self.rows_per_shard)
            return [self.rows_per_shard] * full + ([rest] if rest else [])
        count = self.shards or 1
        if count > rows:
            raise UsageError(f"--shards {count}: the table has {rows} rows, and a shard has at least one.")
        return [rows // count + (number < rows % count) for number in range(count)]


@dataclass(frozen=True)
class _Source:
    table: TableStream
    schema: pa.Schema
    rows: int
    state: tuple[int, int]
    sha256: str


def shard_table(
    source: Path,
    folder: Path,
    sizes: ShardSizes,
    *,
    shuffle: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `shard-00000.parquet`, ... and manifest.json into `folder`, and return the manifest.

    Cells of paths stay as they are: the manifest's `root` says where relative ones start. `shuffle` is a seed.
    `report(rows done, all rows)` is called at the start and after every shard.
    Raises OsoraError when the folder has something in it, or the table is none, has no rows or changes meanwhile.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OsoraError(f"{folder}: is there already, and shards are never overwritten. Name a new folder.")
    if not folder.parent.is_dir():
        raise OsoraError(f"{folder}: there is no folder {folder.parent} to make it in.")
    given = _look_over(source)
    counts = sizes.of(given.rows)
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    try:
        aside.mkdir()
        with TemporaryDirectory(dir=aside, prefix="order-") as scratch:
            parts = _counted(given)
            if shuffle is not None:
                parts = shuffled(parts, given.rows, shuffle, given.schema, Path(scratch))
            written = _write_shards(aside, given, counts, parts, report)
        manifest = _manifest(given, folder, written, shuffle)
        _check_unchanged(given)
        write_text(aside / "manifest.json", json.dumps(manifest, indent=1) + "\n")
        sync_folder(aside)
        aside.replace(folder)
    except OSError as error:
        raise OsoraError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _look_over(source: Path) -> _Source:
    """Return types, rows and checksum of a table; all of a csv is read for that, of parquet the footer."""
    table = open_table(source)
    state = _state(source)
    if is_parquet(source):
        schema, rows = table.schema, pq.read_metadata(source).num_rows
    else:
        types, rows = CsvTypes(source, table.schema.names), 0
        for part in table.parts():
            types.look(part)
            rows += part.num_rows
        schema = types.schema()
    if not rows:
        raise OsoraError(f"{source}: the table has a header and no rows: there is nothing to cut into shards.")
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return _Source(table, schema, rows, state, sha256)


def _counted(given: _Source) -> Iterator[Any]:
    """Yield the table's rows. Raises OsoraError if they are not as many as before."""
    left = given.rows
    for part in typed_parts(given.table, given.schema):
        left -= part.num_rows
        if left < 0:
            break
        yield part
    if left:
        raise _changed(given.table.path)


def _write_shards(
    folder: Path, given: _Source, counts: list[int], parts: Iterable[Any], report: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = []
    cutter = _Cutter(parts)
    done = 0
    if report:
        report(done, given.rows)
    for number, rows in enumerate(counts):
        path = folder / f"shard-{number:05d}.parquet"
        with pq.ParquetWriter(path, given.schema, compression="zstd", write_page_checksum=True) as writer:
            for first in range(0, rows, GROUP_ROWS):
                writer.write_table(cutter.take(min(GROUP_ROWS, rows - first)), row_group_size=GROUP_ROWS)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        shards.append({"file": path.name, "rows": rows, "sha256": sha256})
        done += rows
        if report:
            report(done, given.rows)
    return shards


class _Cutter:
    """Parts of any length, cut anew."""

    def __init__(self, parts: Iterable[Any]) -> None:
        self._parts: Iterator[Any] = iter(parts)
        self._rest: list[Any] = []

    def take(self, rows: int) -> Any:
        """Return the next rows as a table; there have to be as many."""
        while sum(part.num_rows for part in self._rest) < rows:
            self._rest.append(next(self._parts))
        table = pa.Table.from_batches(self._rest)
        left = table.slice(rows)
        self._rest = left.to_batches() if left.num_rows else []
        return table.slice(0, rows)


def _manifest(given: _Source, folder: Path, shards: list[dict[str, Any]], shuffle: int | None) -> dict[str, Any]:
    source = given.table.path
    return {
        "format": FORMAT,
        "columns": {field.name: str(field.type) for field in given.schema},
        "rows": given.rows,
        "root": os.path.relpath(source.resolve().parent, folder.resolve()),
        "shuffle": shuffle,
        "shards": shards,
        "source": {"name": source.name, "bytes": given.state[0], "sha256": given.sha256},
    }


def _state(source: Path) -> tuple[int, int]:
    """Return what changes with a file: its size and the time of its last change."""
    status = source.stat()
    return status.st_size, status.st_mtime_ns


def _check_unchanged(given: _Source) -> None:
    if _state(given.table.path) != given.state:
        raise _changed(given.table.path)


def _changed(source: Path) -> OsoraError:
    return OsoraError(f"{source}: was changed while it was read. Run again when nobody writes to it.")
