"""The table that `osora meta` writes: the rows of the input that could be read, with their new cells."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from opensora_cli.data.meta_columns import COLUMN_TYPES, Cell
from opensora_cli.data.table_stream import is_parquet


class TableWriter(Protocol):
    """Takes record batches of one schema."""

    def write_batch(self, part: Any) -> None:
        """Write some rows."""
        ...


def filled_schema(schema: pa.Schema, columns: tuple[str, ...]) -> pa.Schema:
    """Return a table's schema with the new columns: one that is there already keeps its place, the rest come last."""
    fields = {field.name: field for field in schema} | {name: pa.field(name, COLUMN_TYPES[name]) for name in columns}
    return pa.schema(list((fields | {"path": pa.field("path", pa.string())}).values()))


def filled(part: Any, paths: list[str], columns: tuple[str, ...], cells: list[list[Cell]], schema: pa.Schema) -> Any:
    """Return a record batch with other paths and the new cells of its rows."""
    new = {name: pa.array([row[place] for row in cells], COLUMN_TYPES[name]) for place, name in enumerate(columns)} | {
        "path": pa.array(paths, pa.string())
    }
    arrays = [new[name] if name in new else part.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@contextmanager
def table_writer(path: Path, suffix_of: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Open `path` for writing, as csv or parquet by the suffix of `suffix_of`."""
    if is_parquet(suffix_of):
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield _CsvWriter(file, schema.names)


class _CsvWriter:
    def __init__(self, file: Any, names: list[str]) -> None:
        self._table = csv.writer(file, lineterminator="\n")
        self._table.writerow(names)

    def write_batch(self, part: Any) -> None:
        self._table.writerows(zip(*(column.to_pylist() for column in part.columns), strict=True))
