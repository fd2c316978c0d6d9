"""The types that a csv's cells get in shards: whole numbers, numbers, yes or no, and text."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from opensora_cli.data.meta_columns import COLUMN_TYPES
from opensora_cli.data.table_stream import TableStream, is_parquet
from schemas.errors import OsoraError

NUMBERS = frozenset(
    {name for name, kind in COLUMN_TYPES.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)}
    | {"vmaf_motion", "score_vmafmotion"}
)
"""Columns that training reads as numbers. Every other column of a csv stays text: `007` may be a name."""
FLAGS = frozenset(name for name, kind in COLUMN_TYPES.items() if pa.types.is_boolean(kind))
_WHOLE = r"^-?[0-9]{1,18}$"
_FLAG = {"true": True, "false": False, "": None}


class CsvTypes:
    """Finds out, part by part, which columns of numbers are whole throughout; with a gap a column is float64."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path = path
        self._names = names
        self._whole = {name for name in names if name in NUMBERS}

    def look(self, part: Any) -> None:
        """Take in the next rows."""
        for name in sorted(self._whole):
            if not pc.all(pc.match_substring_regex(part.column(name), _WHOLE), min_count=0).as_py():
                self._whole.remove(name)

    def schema(self) -> pa.Schema:
        """Return the types of what was seen."""
        return pa.schema([(name, self._type(name)) for name in self._names])

    def _type(self, name: str) -> pa.DataType:
        if name in NUMBERS:
            return pa.int64() if name in self._whole else pa.float64()
        return pa.bool_() if name in FLAGS else pa.string()


def typed(part: Any, schema: pa.Schema, path: Path, first_row: int) -> Any:
    """Return a csv's rows with the types of `schema`. Raises OsoraError naming the first cell that does not fit."""
    arrays = [
        part.column(field.name)
        if pa.types.is_string(field.type)
        else pa.array(
            [_cell(text, field, path, row) for row, text in enumerate(part.column(field.name).to_pylist(), first_row)],
            field.type,
        )
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def typed_parts(table: TableStream, schema: pa.Schema) -> Any:
    """Yield the rows of a csv or parquet table with the types of `schema`, which for parquet are its own."""
    row = 0
    for part in table.parts():
        yield part.replace_schema_metadata(None) if is_parquet(table.path) else typed(part, schema, table.path, row)
        row += part.num_rows


def _cell(text: str, field: Any, path: Path, row: int) -> int | float | bool | None:
    try:
        if pa.types.is_boolean(field.type):
            return _FLAG[text.strip().lower()]
        if pa.types.is_integer(field.type):
            return int(text)
        number = float(text) if text.strip() else math.nan
        return None if math.isnan(number) else number
    except (KeyError, ValueError):
        kind = "true or false" if pa.types.is_boolean(field.type) else "a number"
        raise OsoraError(
            f"{path}: {field.name} of row {row} is {text!r}, not {kind}. Correct the cell, or rename the column if it means "
            "something else."
        ) from None
