"""Files for tests of the data side: made clips, and the real ones beside the repository."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from opensora_cli.data.demo_clips import write_mp4

MEDIA = Path(__file__).parents[3] / "shared" / "media"
CLIPS = (
    "av1_video.mkv",
    "bigbuckbunny.mp4",
    "bikes.mp4",
    "carphone_pristine.mp4",
    "discard_first_keyframe.mp4",
    "h265_10bits.mp4",
    "nasa_13013.mp4",
    "nasa_13013_rotated.mp4",
    "testsrc2_mpeg4.mp4",
    "testsrc2_odd_height_and_width_vp9.mp4",
    "testsrc2_vp9.webm",
)
needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason=f"real clips are read from {MEDIA}, which is not there")


def numbered_mp4(path: Path, frames: int = 20, fps: int = 8, size: tuple[int, int] = (32, 48)) -> Path:
    """A clip whose frame i is grey of brightness 40 + 8 i, so that a frame tells its number."""
    levels = np.arange(40, 40 + 8 * frames, 8, dtype=np.uint8)
    write_mp4(path, np.broadcast_to(levels[:, None, None, None], (frames, *size, 3)).copy(), fps)
    return path


def numbers_of(frames_THWC: NDArray[np.uint8], step: int = 8) -> list[int]:
    return [round((float(frame.mean()) - 40) / step) for frame in frames_THWC]


def full_decode(path: Path) -> NDArray[np.uint8]:
    """Every frame of the first video stream as a person sees it."""
    with av.open(str(path)) as container:
        frames = [(f.to_ndarray(format="rgb24"), f.rotation) for f in container.decode(container.streams.video[0])]
    return np.stack([np.rot90(frame, round(rotation / 90) % 4) for frame, rotation in frames])
