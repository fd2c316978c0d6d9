"""What is written behind a caption: frame rate and motion score, as the published checkpoints were trained with."""

import math
import re

from opensora_cli.data.frames import map_target_fps

_FPS_LIMIT = 999
"""From this limit on, a frame rate is no limit at all and is not written."""
_ENDS_WITH_FPS = re.compile(r"\d+ FPS\.$")


def training_caption(text: str, fps: float, fps_max: float | None, motion_score: float | None = None) -> str:
    """Return a caption with its suffix, such as ` 24 FPS, 4 motion score.`; parts that are unknown are left out.

    An `fps` that is a float prints as one below the limit (`15.0 FPS`). NaN is unknown. Source: Open-Sora 2.0, TextDataset.
    """
    parts = []
    new_fps, _ = map_target_fps(fps, fps_max)
    if new_fps != 0 and fps_max is not None and fps_max < _FPS_LIMIT:
        parts.append(f"{new_fps} FPS")
    if motion_score is not None and not math.isnan(motion_score):
        parts.append(f"{int(motion_score + 0.5)} motion score")
    return f"{text} {', '.join(parts)}." if parts else text


def ensure_period(text: str) -> str:
    """Return the text without spaces around it, with a period at its end."""
    text = text.strip()
    return text if text.endswith(".") else f"{text}."


def has_fps(text: str) -> bool:
    """Return whether the text already ends with a frame rate."""
    return _ENDS_WITH_FPS.search(text) is not None


def add_fps(text: str, fps: int) -> str:
    """Return a sampling prompt with ` 24 FPS.` behind it, unless it has a frame rate already."""
    text = ensure_period(text)
    return text if has_fps(text) else f"{text} {fps} FPS."


def add_motion_score(text: str, score: int | str) -> str:
    """Return a sampling prompt with ` 4 motion score.` behind it."""
    return f"{text} {score} motion score."
