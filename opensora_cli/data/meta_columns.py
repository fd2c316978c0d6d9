"""The columns that `osora meta` adds to a table, and the types that its numbers have in any table."""

import math
from dataclasses import asdict

import pyarrow as pa

from opensora_cli.data.clip_details import ClipDetails
from opensora_cli.data.probe import ClipInfo
from schemas.errors import UsageError

Cell = int | float | str | bool | None

META_COLUMNS = ("height", "width", "num_frames", "fps", "aspect_ratio", "resolution")
"""Always there."""
DETAIL_COLUMNS = ("codec", "pixel_format", "duration", "has_audio", "rotation", "variable_frame_rate")
"""On demand: they take a look at every packet of a file and at its first frame."""
COLUMN_TYPES: dict[str, pa.DataType] = {
    "height": pa.int64(),
    "width": pa.int64(),
    "num_frames": pa.int64(),
    "fps": pa.float64(),
    "aspect_ratio": pa.float64(),
    "resolution": pa.int64(),
    "codec": pa.string(),
    "pixel_format": pa.string(),
    "duration": pa.float64(),
    "has_audio": pa.bool_(),
    "rotation": pa.int64(),
    "variable_frame_rate": pa.bool_(),
}


def wanted_columns(extra: str) -> tuple[str, ...]:
    """Return the columns to fill, with `extra` ones named with commas between. Raises UsageError for an unknown name."""
    names = [name.strip() for name in extra.split(",") if name.strip()]
    unknown = [name for name in names if name not in COLUMN_TYPES]
    if unknown:
        raise UsageError(
            f"--columns: no column {', '.join(unknown)}. There are {', '.join(DETAIL_COLUMNS)}; "
            f"{', '.join(META_COLUMNS)} are always written."
        )
    return META_COLUMNS + tuple(name for name in DETAIL_COLUMNS if name in names)


def meta_cells(info: ClipInfo) -> list[Cell]:
    """Return a file's cells, as in `META_COLUMNS`; fps is None where there is none (an image)."""
    fps = None if math.isnan(info.fps) else info.fps
    return [info.height, info.width, info.num_frames, fps, info.aspect_ratio, info.resolution]


def detail_cells(details: ClipDetails, names: tuple[str, ...]) -> list[Cell]:
    """Return the cells of some of `DETAIL_COLUMNS`."""
    cells = asdict(details)
    return [cells[name] for name in names]
