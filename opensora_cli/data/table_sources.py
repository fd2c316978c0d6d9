"""The forms a table of clips comes in: csv, parquet, and the shards with a `manifest.json` that `osora shard` writes."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from opensora_cli.data.row_texts import CsvLines, CsvTexts, ParquetTexts, RowTexts
from schemas.errors import OsoraError

Cells = Sequence[str] | Any
"""Some rows of a column: the strings of a csv, or an Arrow array."""
CHUNK_ROWS = 1 << 14
SHARD_FORMAT = 1


class TableSource(Protocol):
    """A table that is read once, from its first row to its last, and then looked into."""

    path: Path
    names: tuple[str, ...]
    folder: Path
    """Where relative paths of clips start."""
    checksum: str | None
    """A hash of all that is in the table, where one is known without reading it."""

    def chunks(self, columns: Sequence[str]) -> Iterator[Mapping[str, Cells]]:
        """Yield some columns, a part of the rows at a time. Raises OsoraError where the file is no table."""
        ...

    def texts(self) -> RowTexts:
        """Return where paths and captions are looked up; all chunks have been read before."""
        ...


def open_source(path: Path) -> TableSource:
    """Return the table behind a path: csv, .parquet, or .json for shards, whose folder will do as well.

    Raises OsoraError for a file that is missing or no table.
    """
    if path.is_dir() and (path / "manifest.json").is_file():
        path = path / "manifest.json"
    if not path.is_file():
        raise OsoraError(
            f"{path}: no such file. A table of clips is a csv or parquet file, as `osora meta` writes it, or the manifest.json "
            "of `osora shard`."
        )
    try:
        match path.suffix.lower():
            case ".json":
                return _open_shards(path)
            case ".parquet":
                return ParquetSource(path, [path], path.parent)
            case _:
                return CsvSource(path)
    except (csv.Error, ValueError, OSError, pa.ArrowException) as error:
        raise _no_table(path, error) from error


class CsvSource:
    """A csv with a header line. Rows have as many cells as the header; empty lines do not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent
        self.checksum: str | None = None
        with path.open("rb") as file:
            self.names = tuple(_header(csv.reader(CsvLines(file), strict=True)))
        if not self.names:
            raise ValueError("the file is empty")
        self._texts: CsvTexts | None = None

    def chunks(self, columns: Sequence[str]) -> Iterator[Mapping[str, Sequence[str]]]:
        """Yield some columns and note where every row starts. Raises OsoraError with the line of a broken row."""
        self._texts = texts = CsvTexts(self.path, self.names)
        picks = {name: self.names.index(name) for name in columns}
        with self.path.open("rb") as file:
            for starts, rows in self._records(CsvLines(file)):
                texts.add(starts, rows)
                yield {name: [row[at] for row in rows] for name, at in picks.items()}

    def texts(self) -> CsvTexts:
        """Return where paths and captions are looked up."""
        assert self._texts is not None, "the rows were not read before"
        return self._texts

    def _records(self, lines: CsvLines) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Yield the rows behind the header, many at a time, with the bytes at which they start."""
        reader = csv.reader(lines, strict=True)
        width = len(self.names)
        starts: list[int] = []
        rows: list[list[str]] = []
        try:
            _header(reader)
            start = lines.place
            for row in reader:
                if len(row) == width:
                    starts.append(start)
                    rows.append(row)
                    if len(rows) == CHUNK_ROWS:
                        yield starts, rows
                        starts, rows = [], []
                elif row:
                    raise ValueError(f"{len(row)} cells where the header has {width}")
                start = lines.place
        except (csv.Error, ValueError) as error:
            raise _no_table(self.path, error, reader.line_num) from error
        yield starts, rows


def _header(reader: Iterator[list[str]]) -> list[str]:
    """Return the first line that is not empty, or nothing."""
    return next(filter(None, reader), [])


class ParquetSource:
    """One parquet file, or several that follow one another."""

    def __init__(self, path: Path, files: Sequence[Path], folder: Path, checksum: str | None = None) -> None:
        self.path = path
        self.folder = folder
        self.checksum = checksum
        self._files = files
        self.names = tuple(str(name) for name in pq.read_schema(files[0]).names)

    def chunks(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield some columns. Raises OsoraError, with the file, where one cannot be read or lacks a column."""
        for file in self._files:
            try:
                with pq.ParquetFile(file, page_checksum_verification=True) as table:
                    if missing := [name for name in columns if name not in table.schema_arrow.names]:
                        raise ValueError(f"no column {', '.join(missing)}, which {self._files[0].name} has")
                    for part in table.iter_batches(CHUNK_ROWS, columns=list(columns), use_threads=False):
                        yield {name: part.column(name) for name in columns}
            except (ValueError, OSError, pa.ArrowException) as error:
                raise _no_table(file, error) from error

    def texts(self) -> ParquetTexts:
        """Return where paths and captions are looked up."""
        return ParquetTexts(self._files)


def _open_shards(path: Path) -> ParquetSource:
    """Return the shards of a manifest, after comparing their rows with it.

    The checksums are taken as the manifest has them: reading every byte at every start would take as long as training waits.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    try:
        number, root, rows = record["format"], str(record["root"]), record["rows"]
        shards = [(path.parent / shard["file"], shard["rows"], str(shard["sha256"])) for shard in record["shards"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not the manifest of `osora shard` ({error})") from error
    if number != SHARD_FORMAT:
        raise ValueError(f"shards of format {number}; this version of osora reads format {SHARD_FORMAT}")
    if rows != sum(count for _, count, _ in shards) or not shards:
        raise ValueError(f"it speaks of {rows} rows and its {len(shards)} shards of {sum(n for _, n, _ in shards)}")
    for file, count, _ in shards:
        if not file.is_file():
            raise ValueError(f"the shard {file} is missing")
        if (found := pq.read_metadata(file).num_rows) != count:
            raise ValueError(f"the shard {file} has {found} rows, not {count}")
    digest = hashlib.sha256("\n".join(sha256 for _, _, sha256 in shards).encode())
    return ParquetSource(path, [file for file, _, _ in shards], path.parent / root, digest.hexdigest())


def _no_table(path: Path, error: Exception, line: int | None = None) -> OsoraError:
    where = f"{path}, line {line}" if line else str(path)
    return OsoraError(
        f"{where}: not a table of clips: {error}. It has to be csv with a header line, .parquet, or the manifest.json of "
        "`osora shard`."
    )
