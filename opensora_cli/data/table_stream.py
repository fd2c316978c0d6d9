"""Tables of any length, a part of the rows at a time: csv, parquet, or a folder, which is listed into a csv first."""

import csv
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from opensora_cli.files import whole_file
from schemas.errors import OsoraError

CSV_BLOCK_BYTES = 1 << 22
"""Bytes of a csv that are read at once; one row has to fit in."""
PART_ROWS = 1 << 14


@dataclass(frozen=True)
class TableStream:
    """A csv or parquet file that is read from its first row to its last, as often as one likes.

    In a csv every cell is text as it is written.
    """

    path: Path
    schema: pa.Schema

    def parts(self) -> Iterator[Any]:
        """Yield record batches. Raises OsoraError where the file turns out to be damaged."""
        try:
            if is_parquet(self.path):
                with pq.ParquetFile(self.path) as table:
                    yield from table.iter_batches(PART_ROWS, use_threads=False)
            else:
                with _csv_reader(self.path, self.schema.names) as reader:
                    yield from reader
        except (ValueError, OSError, pa.ArrowException) as error:
            raise _no_table(self.path, error) from error


def is_parquet(path: Path) -> bool:
    """Return whether a table is parquet, by its suffix; everything else is read as csv."""
    return path.suffix.lower() == ".parquet"


def open_table(path: Path) -> TableStream:
    """Open a table, reading its header alone. Raises OsoraError for a file that is missing, or no table."""
    if not path.is_file():
        raise OsoraError(f"{path}: no such file. A table of clips is a csv or parquet file, as `osora meta` writes it.")
    try:
        if is_parquet(path):
            schema = pq.read_schema(path).remove_metadata()
        else:
            schema = pa.schema([(name, pa.string()) for name in _csv_header(path)])
    except (ValueError, OSError, csv.Error, pa.ArrowException) as error:
        raise _no_table(path, error) from error
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise OsoraError(f"{path}: two columns are called {', '.join(twice)}. Rename one of them.")
    return TableStream(path, schema)


def list_folder(folder: Path, listing: Path, suffixes: frozenset[str]) -> int:
    """Write a csv with a column path of every entry below a folder that has one of the suffixes; return their number.

    Names come in the order of `sorted(Path)`. Links to folders are not followed. Entries that are no files are listed like
    the rest, and folders that cannot be read too: whoever reads the list says why they are no clips.
    """
    count = 0
    with whole_file(listing) as aside, aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path"])
        for path in _entries(folder.resolve(), suffixes):
            table.writerow([path])
            count += 1
    return count


def _entries(folder: Path, suffixes: frozenset[str]) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        yield str(folder)
        return
    for entry in entries:
        is_folder = False
        with suppress(OSError):
            is_folder = entry.is_dir(follow_symlinks=False)
        if Path(entry.name).suffix.lower() in suffixes:
            yield entry.path
        if is_folder:
            yield from _entries(Path(entry.path), suffixes)


def _csv_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, strict=True), [])
    if not names:
        raise ValueError("the file is empty")
    return names


def _csv_reader(path: Path, names: list[str]) -> Any:
    return pacsv.open_csv(
        path,
        read_options=pacsv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=names
        ),
    )


def _no_table(path: Path, error: Exception) -> OsoraError:
    return OsoraError(f"{path}: not a table of clips: {error}. It has to be csv with a header line, or .parquet.")
