"""The table of clips: what training needs of a csv or parquet file, checked once and kept as columns."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opensora_cli.data.draws import Floats, Ints
from schemas.errors import OsoraError

SIZES = ("height", "width", "num_frames")
NEEDED = ("path", "text", *SIZES, "fps")
MOTION_COLUMNS = ("vmaf_motion", "score_vmafmotion")
"""Names of the motion score, the first one that is there counts; the second is that of upstream's tables."""


@dataclass(frozen=True)
class Manifest:
    """Columns of a table of clips; the row number is the place in the file, from 0. fps and motion are NaN where unknown."""

    source: Path
    paths: Any
    texts: Any
    heights: Ints
    widths: Ints
    frames: Ints
    fps: Floats
    motion: Floats | None
    whole_fps: bool
    """Whether the table's fps are whole numbers, which captions then show without a decimal point."""
    fingerprint: str
    """Hash of every column that training reads: equal tables give equal runs."""

    def __len__(self) -> int:
        return len(self.heights)

    def path(self, row: int) -> str:
        """Return a row's file; relative paths start at the table's folder."""
        return str(self.source.parent / self.paths[row].as_py())

    def text(self, row: int) -> str:
        """Return a row's caption."""
        return str(self.texts[row].as_py())

    def fps_of(self, row: int) -> float:
        """Return a row's frames per second, an int where the table has whole numbers."""
        fps = float(self.fps[row])
        return int(fps) if self.whole_fps and not math.isnan(fps) else fps

    def motion_of(self, row: int) -> float | None:
        """Return a row's motion score, None without such a column."""
        return None if self.motion is None else float(self.motion[row])


def read_table(path: Path, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Return a csv or parquet file, of the columns named those it has.

    In a csv every cell stays text as it is written. Raises OsoraError for a file that is missing or no table.
    """
    if not path.is_file():
        raise OsoraError(f"{path}: no such file. A table of clips is a csv or parquet file, as `osora meta` writes it.")
    try:
        if path.suffix.lower() == ".parquet":
            there = pq.read_schema(path).names
            return pd.read_parquet(
                path, columns=None if columns is None else [name for name in columns if name in there]
            )
        wanted = None if columns is None else (lambda name: name in columns)
        return pd.read_csv(path, dtype=str, keep_default_na=False, usecols=wanted)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise OsoraError(
            f"{path}: not a table of clips: {error}. It has to be csv with a header line, or .parquet."
        ) from error


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns."""
    if path.suffix.lower() == ".parquet":
        return [str(name) for name in pq.read_schema(path).names]
    return [str(name) for name in pd.read_csv(path, nrows=0).columns]


def read_manifest(path: str | Path, *, motion: bool = False) -> Manifest:
    """Read the columns that training needs, with `motion` the motion score too.

    Raises OsoraError for a missing file, missing columns, cells that are no sizes, or no rows; each says what to do.
    """
    source = Path(path)
    table = read_table(source, NEEDED + MOTION_COLUMNS)
    _check_columns(source, table, motion)
    if table.empty:
        raise OsoraError(f"{source}: the table has a header and no rows. `osora meta FOLDER {source.name}` fills one.")
    sizes = {name: _sizes(source, table, name) for name in SIZES}
    fps = _numbers(source, table, "fps")
    scores = next((name for name in MOTION_COLUMNS if name in table), None) if motion else None
    return Manifest(
        source=source,
        paths=pa.array(table["path"].astype(str)),
        texts=pa.array(table["text"].fillna("").astype(str)),
        heights=sizes["height"],
        widths=sizes["width"],
        frames=sizes["num_frames"],
        fps=fps,
        motion=None if scores is None else _numbers(source, table, scores),
        whole_fps=_are_whole(table["fps"]),
        fingerprint=_fingerprint(table[[*NEEDED, *([scores] if scores else [])]]),
    )


def _check_columns(source: Path, table: pd.DataFrame, motion: bool) -> None:
    missing = [name for name in NEEDED if name not in table]
    if "text" in missing:
        raise OsoraError(
            f"{source}: no column text, the captions (found: {', '.join(column_names(source))}). Add one with a caption per clip."
        )
    if missing:
        raise OsoraError(
            f"{source}: no column {', '.join(missing)} (found: {', '.join(column_names(source))}). "
            + (
                f"`osora meta {source.name} with_meta{source.suffix}` adds them."
                if "path" not in missing
                else "Rename the column that holds the files to path."
            )
        )
    if motion and not any(name in table for name in MOTION_COLUMNS):
        raise OsoraError(
            f"{source}: dataset.vmaf is true and there is no column {MOTION_COLUMNS[0]}. Add it, or set dataset.vmaf = false."
        )


def _numbers(source: Path, table: pd.DataFrame, name: str) -> Floats:
    """Return a column as float64, empty cells as NaN."""
    column = table[name]
    cells = column.replace("", np.nan) if column.dtype == object or isinstance(column.dtype, pd.StringDtype) else column
    numbers = pd.to_numeric(cells, errors="coerce")
    odd = np.flatnonzero((numbers.isna() & cells.notna()).to_numpy())
    if len(odd):
        raise OsoraError(
            f"{source}: {name} of row {odd[0]} is {column.iloc[odd[0]]!r}, not a number ({len(odd)} such rows)."
        )
    return numbers.to_numpy(dtype=np.float64)


def _sizes(source: Path, table: pd.DataFrame, name: str) -> Ints:
    numbers = _numbers(source, table, name)
    wrong: NDArray[np.intp] = np.flatnonzero(~(numbers >= 1))
    if len(wrong):
        value = numbers[wrong[0]]
        raise OsoraError(
            f"{source}: {name} of row {wrong[0]} is {'empty' if math.isnan(value) else value} "
            f"({len(wrong)} such rows). `osora meta {source.name} with_meta{source.suffix}` fills it in and leaves out what "
            "cannot be read."
        )
    return numbers.astype(np.int64)


def _are_whole(column: "pd.Series[Any]") -> bool:
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        return bool(column.str.fullmatch(r"\d+").all())
    return bool(pd.api.types.is_integer_dtype(column.dtype))


def _fingerprint(table: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for name in table.columns:
        digest.update(name.encode())
        digest.update(pd.util.hash_array(table[name].astype(str).to_numpy(dtype=object), categorize=False).tobytes())
    return digest.hexdigest()[:32]
