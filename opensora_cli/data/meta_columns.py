"""The columns that `osora meta` adds to a table."""

import math

from opensora_cli.data.probe import ClipInfo

META_COLUMNS = ("height", "width", "num_frames", "fps", "aspect_ratio", "resolution")


def meta_row(info: ClipInfo) -> dict[str, int | float | None]:
    """Return a file's cells; fps is None where there is none (an image)."""
    return {
        "height": info.height,
        "width": info.width,
        "num_frames": info.num_frames,
        "fps": None if math.isnan(info.fps) else info.fps,
        "aspect_ratio": info.aspect_ratio,
        "resolution": info.resolution,
    }
