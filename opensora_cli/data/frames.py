"""Which frames of a clip are used: frame-rate limit and temporal crop."""

import math

import numpy as np

from opensora_cli.data.draws import Floats, Ints


def map_target_fps(fps: float, fps_max: float | None) -> tuple[float, int]:
    """Return (frames per second after skipping, sampling interval) under a limit; None is no limit.

    Below the limit the rate stays as it is; at or above it, it becomes whole. NaN (no rate known) gives (0, 1).
    Source: Open-Sora 2.0, datasets/utils.py.
    """
    if math.isnan(fps):
        return 0, 1
    if fps_max is None or fps < fps_max:
        return fps, 1
    interval = math.ceil(fps / fps_max)
    return math.floor(fps / interval), interval


def sampling_intervals(fps: Floats, fps_max: float | None) -> Ints:
    """Return `map_target_fps`'s interval for many rates at once."""
    if fps_max is None:
        return np.ones(len(fps), dtype=np.int64)
    known = np.where(np.isnan(fps), 0.0, fps)
    return np.where(known < fps_max, 1, np.ceil(known / fps_max)).astype(np.int64)


def latest_start(total_frames: int, num_frames: int, interval: int) -> int:
    """Return the last frame a window may start at, so that it ends inside the clip; 0 for a clip just long enough."""
    return max(0, total_frames - num_frames * interval)


def crop_indices(total_frames: int, num_frames: int, interval: int, start: int) -> list[int]:
    """Return the frames of the window that starts at `start`: evenly spread over num_frames * interval frames.

    A clip shorter than that span gives its frames up to the end. Raises ValueError when fewer than num_frames are left.
    Source: Open-Sora 2.0, temporal_random_crop.
    """
    end = min(start + num_frames * interval, total_frames)
    if end - start < num_frames:
        raise ValueError(
            f"{num_frames} frames from frame {start} of {total_frames}: only {max(end - start, 0)} are left"
        )
    return [int(index) for index in np.linspace(start, end - 1, num_frames, dtype=np.int64)]
