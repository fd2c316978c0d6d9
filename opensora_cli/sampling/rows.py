"""Prompts from files: a text file with one a line, or a table with a column `text` and what each row has of its own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from opensora_cli.data.manifest import read_table
from schemas.errors import OsoraError, UsageError

NUMBERS = ("num_frames", "height", "width")
SETTINGS = (*NUMBERS, "resolution", "aspect_ratio", "mask_strategy")
"""Columns named after keys of [sampling], which they replace for their row."""
COLUMNS = ("text", "ref", "name", "neg", "seed", *SETTINGS)
DIGITS = 18  # what any generator takes as a seed
TABLES = frozenset({".csv", ".parquet"})


@dataclass(frozen=True)
class Row:
    """One prompt as a user gave it; what is empty or None comes from the command line or the recipe."""

    text: str
    place: str
    """Where it stands, for messages."""
    references: str = ""
    name: str | None = None
    negative: str | None = None
    seed: int | None = None
    folder: Path = Path()
    """Where relative references start."""
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_rows(path: Path) -> list[Row]:
    """Return the prompts of a .txt, .csv or .parquet file. Raises OsoraError, with the row, for what cannot be used."""
    if path.suffix.lower() not in TABLES:
        return _read_lines(path)
    table = read_table(path)
    columns = [str(name) for name in table.columns]
    _check_columns(path, columns)
    if table.empty:
        raise UsageError(f"--prompts {path}: the table has a header and no rows.")
    cells = [
        {name: _text(cell) for name, cell in zip(columns, row, strict=True)} for row in table.itertuples(index=False)
    ]
    return [_row(path, number, row) for number, row in enumerate(cells)]


def _read_lines(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--prompts {path}: cannot read it: {error}. It must be a UTF-8 text file, or a table (.csv, .parquet)."
        ) from error
    rows = [Row(line.strip(), f"{path} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UsageError(f"--prompts {path}: the file has no prompt in it. Write one a line.")
    return rows


def _check_columns(path: Path, columns: list[str]) -> None:
    if "text" not in columns:
        raise UsageError(f"--prompts {path}: no column text, the prompts (found: {', '.join(columns)}).")
    for name in columns:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, 1)
            hint = f"Did you mean {near[0]}?" if near else "Take it out."
            raise UsageError(f"--prompts {path}: nothing reads a column {name}; there are {', '.join(COLUMNS)}. {hint}")


def _row(path: Path, number: int, cells: Mapping[str, str]) -> Row:
    place = f"{path} row {number}"
    if not cells["text"]:
        raise UsageError(f"{place}: the prompt is blank. Describe what the clip should show, or take the row out.")
    settings: dict[str, Any] = {name: cells[name] for name in SETTINGS if cells.get(name)}
    for name in NUMBERS:
        if name in settings:
            settings[name] = _whole(place, name, settings[name])
    return Row(
        cells["text"],
        place,
        references=cells.get("ref", ""),
        name=cells.get("name") or None,
        negative=cells.get("neg") or None,
        seed=_whole(place, "seed", cells["seed"]) if cells.get("seed") else None,
        folder=path.parent,
        settings=settings,
    )


def _text(cell: object) -> str:
    """Return a cell as text; an empty one of a parquet file is None or NaN, and makes whole numbers floats."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _whole(place: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise OsoraError(
            f"{place}: {name} is {text!r}; it has to be a whole number from 0 up, of at most {DIGITS} digits."
        )
    return int(text)
