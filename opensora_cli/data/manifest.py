"""The table of clips: what training needs of it, checked once; sizes and rates as columns, paths and captions row by row."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from opensora_cli.data.columns import NumberColumn, SizeColumn, TextDigest, fingerprint
from opensora_cli.data.draws import Floats, Sizes
from opensora_cli.data.row_texts import CsvTexts, ParquetTexts, RowText, RowTexts
from opensora_cli.data.table_sources import TableSource, open_source
from schemas.errors import OsoraError

SIZES = ("height", "width", "num_frames")
TEXTS = ("path", "text")
NEEDED = (*TEXTS, *SIZES, "fps")
MOTION_COLUMNS = ("vmaf_motion", "score_vmafmotion")
"""Names of the motion score, the first one that is there counts; the second is that of upstream's tables."""
SLOW_CSV = 1 << 20
"""Rows of a csv from which on opening it takes seconds."""
SLOW_GROUP = 1 << 16
"""Rows of a parquet row group from which on the look-up of one caption takes too long to be done in passing."""


@dataclass(frozen=True)
class Manifest:
    """Columns of a table of clips; the row number is the place in it, from 0. fps and motion are NaN where unknown.

    A row takes 20 bytes of memory, 28 with its motion score and 8 more where the table is a csv.
    """

    source: Path
    folder: Path
    """Where relative paths start."""
    texts: RowTexts
    heights: Sizes
    widths: Sizes
    frames: Sizes
    fps: Floats
    motion: Floats | None
    whole_fps: bool
    """Whether the table's fps are whole numbers, which captions then show without a decimal point."""
    fingerprint: str
    """Hash of what training reads, for shards of all that is in them: equal tables give equal runs."""

    def __len__(self) -> int:
        return len(self.heights)

    def clip(self, row: int) -> RowText:
        """Return a row's file, relative paths from `folder` on, and its caption."""
        path, text = self.texts.read(row)
        return RowText(str(self.folder / path), text)

    def path(self, row: int) -> str:
        """Return a row's file."""
        return self.clip(row).path

    def text(self, row: int) -> str:
        """Return a row's caption."""
        return self.clip(row).text

    def fps_of(self, row: int) -> float:
        """Return a row's frames per second, an int where the table has whole numbers."""
        fps = float(self.fps[row])
        return int(fps) if self.whole_fps else fps

    def motion_of(self, row: int) -> float | None:
        """Return a row's motion score, None without such a column."""
        return None if self.motion is None else float(self.motion[row])

    def warnings(self) -> list[str]:
        """Return a line for what makes reading slow, and what helps."""
        texts = self.texts
        if isinstance(texts, CsvTexts) and len(self) > SLOW_CSV:
            return [f"{self.source} has {len(self)} rows: shards, as `osora shard` writes them, open many times faster"]
        if isinstance(texts, ParquetTexts) and len(self) > texts.largest_group > SLOW_GROUP:
            return [
                f"{self.source} has row groups of {texts.largest_group} rows: captions are found faster in smaller ones, as "
                "`osora shard` writes them"
            ]
        return []


def read_manifest(path: str | Path, *, motion: bool = False) -> Manifest:
    """Open a table and read the sizes and rates of its clips, with `motion` the motion score too.

    Raises OsoraError for a missing file, missing columns, cells that are no sizes, or no rows; each says what to do.
    """
    source = open_source(Path(path))
    _check_columns(source, motion)
    score = next((name for name in MOTION_COLUMNS if name in source.names), None) if motion else None
    numbers: dict[str, NumberColumn] = {name: SizeColumn(source.path, name) for name in SIZES}
    numbers |= {name: NumberColumn(source.path, name) for name in ("fps", score) if name}
    texts = (
        {} if source.checksum else {name: TextDigest(source.path, name, may_be_empty=name == "text") for name in TEXTS}
    )
    columns: dict[str, NumberColumn | TextDigest] = {**texts, **numbers}
    for part in source.chunks(list(columns)):
        for name, column in columns.items():
            column.add(part[name])
    heights, widths, frames, fps = (numbers[name].finish() for name in (*SIZES, "fps"))
    if not len(heights):
        raise OsoraError(
            f"{source.path}: the table has a header and no rows. `osora meta FOLDER {source.path.name}` fills one."
        )
    return Manifest(
        source=source.path,
        folder=source.folder,
        texts=source.texts(),
        heights=heights,
        widths=widths,
        frames=frames,
        fps=fps,
        motion=numbers[score].finish() if score else None,
        whole_fps=numbers["fps"].whole,
        fingerprint=source.checksum or fingerprint(columns, list(columns)),
    )


def _check_columns(table: TableSource, motion: bool) -> None:
    source, found = table.path, ", ".join(table.names)
    missing = [name for name in NEEDED if name not in table.names]
    if "text" in missing:
        raise OsoraError(f"{source}: no column text, the captions (found: {found}). Add one with a caption per clip.")
    if missing:
        raise OsoraError(
            f"{source}: no column {', '.join(missing)} (found: {found}). "
            + (
                f"`osora meta {source.name} with_meta{source.suffix}` adds them."
                if "path" not in missing
                else "Rename the column that holds the files to path."
            )
        )
    if motion and not any(name in table.names for name in MOTION_COLUMNS):
        raise OsoraError(
            f"{source}: dataset.vmaf is true and there is no column {MOTION_COLUMNS[0]}. Add it, or set dataset.vmaf = false."
        )


def read_table(path: Path) -> pd.DataFrame:
    """Return all of a csv or parquet file.

    In a csv every cell stays text as it is written. Raises OsoraError for a file that is missing or no table.
    """
    if not path.is_file():
        raise OsoraError(f"{path}: no such file. A table of clips is a csv or parquet file, as `osora meta` writes it.")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise OsoraError(
            f"{path}: not a table of clips: {error}. It has to be csv with a header line, or .parquet."
        ) from error
