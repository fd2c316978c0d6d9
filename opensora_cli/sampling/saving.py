"""Samples as files. Each is written aside and renamed when it is complete."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from opensora_cli.files import write_text
from schemas.errors import OsoraError

Frames = NDArray[np.uint8]
"""(T, H, W, 3), 0 to 255."""

CRF = "17"  # visually lossless; lower is larger


def to_frames(video_CTHW: Tensor) -> Frames:
    """Turn pixels in [-1, 1] into bytes; what lies outside is clamped."""
    bytes_CTHW = ((video_CTHW.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(rearrange(bytes_CTHW.cpu(), "c t h w -> t h w c").numpy())


def write_sample(stem: Path, video_CTHW: Tensor, fps: int) -> Path:
    """Write a clip as `<stem>.mp4`, or a single frame as `<stem>.png`, and return the path."""
    frames = to_frames(video_CTHW)
    if len(frames) == 1:
        return write_image(stem.with_name(f"{stem.name}.png"), frames[0])
    return write_video(stem.with_name(f"{stem.name}.mp4"), frames, fps)


def write_video(path: Path, frames_THWC: Frames, fps: int) -> Path:
    """Write H.264, yuv420p, at a constant rate. Raises OsoraError for odd sides or when the disk refuses."""
    height, width = frames_THWC.shape[1:3]
    if height % 2 or width % 2:
        raise OsoraError(
            f"{path}: H.264 with yuv420p needs even sides, the frames are {height} x {width} (height x width)."
        )
    with _aside(path) as partial, av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=Fraction(fps), options={"crf": CRF, "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame_HWC in frames_THWC:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def write_image(path: Path, frame_HWC: Frames) -> Path:
    """Write a PNG. Raises OsoraError when the disk refuses."""
    with _aside(path) as partial:
        Image.fromarray(frame_HWC).save(partial, format="PNG")
    return path


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Write how a sample was made, as JSON."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; it becomes `path` at the end, or nothing at all after any interruption."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, av.FFmpegError) as error:
        raise OsoraError(
            f"cannot write {path}: {error}. Free some space, or choose another sampling.save_dir."
        ) from error
