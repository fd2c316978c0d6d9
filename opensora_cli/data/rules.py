"""What Open-Sora's lines do differently with the same table of clips, chosen by `dataset.rules`.

`open-sora-2.0` works sizes out for a token, limits the frame rate and writes it behind the caption. `open-sora-1.2` looks sizes
up, takes every n-th frame whatever the rate, and leaves captions alone: its models get the rate as a number.
Sources: Open-Sora 2.0 and 1.2, datasets/{aspect,bucket,datasets,utils}.py.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from opensora_cli.data import aspect, aspect_v1
from opensora_cli.data.captions import training_caption
from opensora_cli.data.draws import Floats, Ints, Sizes
from opensora_cli.data.frames import latest_start, map_target_fps, sampling_intervals
from opensora_cli.data.media import is_image
from opensora_cli.data.transforms import TransformName
from opensora_models.conditions import IMAGE_FPS, USUAL_FPS
from schemas.data import DatasetConfig


class DataRules(Protocol):
    """The rules of one line."""

    @property
    def strict(self) -> bool:
        """Whether a draw must be below a keep probability, and the second of a pair is the chance to consider a length.

        Else a draw may be equal, and the second of a pair is the chance to skip its length.
        """

    def aspect_table(self, resolution: str, compression: int) -> dict[str, aspect.Size]:
        """Return ratio name -> (height, width) in pixels, for `compression` pixels per token and axis."""

    def pixel_count(self, resolution: str) -> int:
        """Return the pixels of a resolution."""

    def ratio_value(self, name: str) -> float:
        """Return height / width of a ratio."""

    def any_size(self, resolution: str) -> bool:
        """Whether a resolution takes clips of any size, and shorter windows than its interval asks for."""

    def usable_frames(self, frames: Sizes, fps: Floats, fps_max: float | None) -> Ints:
        """Return the length of the longest bucket that each clip fits into; 1 is for pictures, and for nothing else."""

    def rate(self, path: str, fps: float, fps_max: float | None) -> tuple[float, int]:
        """Return the frames per second that a clip is shown with, and the interval between its frames."""

    def latest_start(self, total_frames: int, num_frames: int, interval: int) -> int:
        """Return the last frame that a window may start at."""

    def caption(self, text: str, fps: float, fps_max: float | None, motion_score: float | None) -> str:
        """Return a caption as the text encoder gets it in training."""

    def transform(self, name: TransformName) -> TransformName:
        """Return the pixel transform that the line calls by a name."""


@dataclass(frozen=True)
class Rules20:
    """Open-Sora 2.0."""

    strict: bool = False

    def aspect_table(self, resolution: str, compression: int) -> dict[str, aspect.Size]:
        """Work the sizes out."""
        return aspect.aspect_table(resolution, compression)

    def pixel_count(self, resolution: str) -> int:
        """Return the pixel budget that the name stands for."""
        return aspect.pixel_count(resolution)

    def ratio_value(self, name: str) -> float:
        """Ratios are called width:height."""
        return aspect.ratio_value(name)

    def any_size(self, resolution: str) -> bool:
        """Every resolution has a least size."""
        return False

    def usable_frames(self, frames: Sizes, fps: Floats, fps_max: float | None) -> Ints:
        """Count the frames that are left under the frame-rate limit."""
        usable: Ints = frames // sampling_intervals(fps, fps_max)
        return usable

    def rate(self, path: str, fps: float, fps_max: float | None) -> tuple[float, int]:
        """Limit the rate; 0 where it is not known."""
        return map_target_fps(fps, fps_max)

    def latest_start(self, total_frames: int, num_frames: int, interval: int) -> int:
        """A window may end at the clip's last frame."""
        return latest_start(total_frames, num_frames, interval)

    def caption(self, text: str, fps: float, fps_max: float | None, motion_score: float | None) -> str:
        """Write rate and motion score behind it."""
        return training_caption(text, fps, fps_max, motion_score)

    def transform(self, name: TransformName) -> TransformName:
        """Return it as it is."""
        return name


@dataclass(frozen=True)
class Rules12:
    """Open-Sora 1.0 to 1.2: a window of frames * `frame_interval`, whatever the frame rate."""

    frame_interval: int = 1
    strict: bool = True

    def aspect_table(self, resolution: str, compression: int) -> dict[str, aspect.Size]:
        """Look the sizes up; they suit patches of any size, since these models pad."""
        return aspect_v1.aspect_table(resolution)

    def pixel_count(self, resolution: str) -> int:
        """Look the pixels up."""
        return aspect_v1.pixel_count(resolution)

    def ratio_value(self, name: str) -> float:
        """Ratios are called after their height / width."""
        return aspect_v1.ratio_value(name)

    def any_size(self, resolution: str) -> bool:
        """One size, such as 256x256, is what Open-Sora 1.0 brings every clip to that has the frames."""
        return aspect_v1.is_fixed(resolution)

    def usable_frames(self, frames: Sizes, fps: Floats, fps_max: float | None) -> Ints:
        """A clip must be longer, not just as long, as frames * interval: upstream's window never takes the last frame.

        A clip of two frames fits length 1 by that, which is for pictures: it fits nothing.
        """
        usable: Ints = (frames.astype(np.int64) - 1) // self.frame_interval
        return np.where(frames == 1, 1, np.where(usable == 1, 0, usable))

    def rate(self, path: str, fps: float, fps_max: float | None) -> tuple[float, int]:
        """Divide the rate by the interval, down to a whole number."""
        if is_image(path):
            return IMAGE_FPS, self.frame_interval
        return (USUAL_FPS if math.isnan(fps) else fps) // self.frame_interval, self.frame_interval

    def latest_start(self, total_frames: int, num_frames: int, interval: int) -> int:
        """A window ends before the clip's last frame, unless the clip is no longer than it."""
        return max(0, total_frames - num_frames * interval - 1)

    def caption(self, text: str, fps: float, fps_max: float | None, motion_score: float | None) -> str:
        """Return it as the table has it: scores were written there beforehand."""
        return text

    def transform(self, name: TransformName) -> TransformName:
        """Clips are scaled by a factor in `center`, which samples other places than scaling to a whole size does."""
        return "center_scaled" if name == "center" else name


RULES_2_0 = Rules20()


def rules_of(dataset: DatasetConfig) -> DataRules:
    """Return the rules that a recipe names."""
    return RULES_2_0 if dataset.rules == "open-sora-2.0" else Rules12(dataset.frame_interval)
