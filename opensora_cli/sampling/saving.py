"""Samples as files. Each is written aside and renamed when it is complete."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from opensora_cli.files import write_text
from schemas.errors import OsoraError
from schemas.sampling import SamplingConfig

Frames = NDArray[np.uint8]
"""(T, H, W, 3), 0 to 255."""

CRF = "17"  # visually lossless; lower is larger


def to_frames(video_CTHW: Tensor) -> Frames:
    """Turn pixels in [-1, 1] into bytes; what lies outside is clamped."""
    bytes_CTHW = ((video_CTHW.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(rearrange(bytes_CTHW.cpu(), "c t h w -> t h w c").numpy())


def suffix_of(config: SamplingConfig) -> str:
    """Return the suffix of a sample's file."""
    if config.num_frames == 1:
        return ".webp" if config.output_format == "webp" else ".png"
    return {"mp4": ".mp4", "lossless": ".mkv", "gif": ".gif", "webp": ".webp"}[config.output_format]


def write_sample(path: Path, video_CTHW: Tensor, fps: int, *, odd_sides: str = "Write .mkv, for any sides.") -> Path:
    """Write a clip or a single frame in the format of the path's suffix, and return the path.

    .mp4 is H.264, .mkv FFV1 without loss, .gif and .webp show clips in browsers, .png (and .webp of one frame) are
    images without loss, a clip's first frame. `odd_sides` says what the caller's user can do about odd sides in an .mp4.
    Raises OsoraError for another suffix, for pixels that are no numbers, for
    odd sides of an .mp4, or when the disk refuses.
    """
    if not video_CTHW.isfinite().all():
        raise OsoraError(
            f"{path}: the model made pixels that are no numbers (NaN or infinite). Try --set dtype=fp32, or other weights."
        )
    frames_THWC = to_frames(video_CTHW)
    match path.suffix:
        case ".mp4":
            _check_even(path, frames_THWC, odd_sides)
            return write_video(path, frames_THWC, fps)
        case ".mkv":
            return _write_lossless(path, frames_THWC, fps)
        case ".gif":
            return _write_animation(path, frames_THWC, fps, "GIF", unit=10)
        case ".webp" if len(frames_THWC) > 1:
            return _write_animation(path, frames_THWC, fps, "WEBP", unit=1)
        case ".png" | ".webp":
            return write_image(path, frames_THWC[0])
        case _:
            raise OsoraError(f"{path}: samples are written as .mp4, .mkv (without loss), .gif, .webp or .png.")


def write_video(path: Path, frames_THWC: Frames, fps: int) -> Path:
    """Write H.264, yuv420p, at a constant rate; sides must be even. Raises OsoraError when the disk refuses."""
    with _aside(path) as partial, av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as file:
        # Without macroblock trees: with them x264's AVX-512 code now and then gives other bytes for the same pictures.
        options = {"crf": CRF, "preset": "medium", "x264-params": "mbtree=0"}
        stream = file.add_stream("libx264", rate=Fraction(fps), options=options)
        _encode(file, stream, frames_THWC, "yuv420p")
    return path


def _check_even(path: Path, frames_THWC: Frames, way_out: str) -> None:
    height, width = frames_THWC.shape[1:3]
    if height % 2 or width % 2:
        raise OsoraError(
            f"{path}: H.264 with yuv420p needs even sides, the frames are {height} x {width} (height x width). {way_out}"
        )


def _write_lossless(path: Path, frames_THWC: Frames, fps: int) -> Path:
    """Write FFV1 in RGB. `bitexact` leaves out Matroska's random ids, so that equal clips are equal files."""
    with (
        _aside(path) as partial,
        av.open(str(partial), "w", format="matroska", options={"fflags": "+bitexact"}) as file,
    ):
        stream = file.add_stream("ffv1", rate=Fraction(fps), options={"level": "3"})
        _encode(file, stream, frames_THWC, "bgr0")
    return path


def _encode(file: OutputContainer, stream: VideoStream, frames_THWC: Frames, pixels: str) -> None:
    stream.height, stream.width = frames_THWC.shape[1:3]
    stream.pix_fmt = pixels
    for frame_HWC in frames_THWC:
        file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
    file.mux(stream.encode(None))


def _write_animation(path: Path, frames_THWC: Frames, fps: int, kind: str, *, unit: int) -> Path:
    """Write a file that plays for ever. Frames last whole units of so many milliseconds; together they keep the speed."""
    ends = [round((frame + 1) * 1000 / fps / unit) * unit for frame in range(len(frames_THWC))]
    first, *rest = [Image.fromarray(frame_HWC) for frame_HWC in frames_THWC]
    options: dict[str, Any] = {"lossless": False, "quality": 90, "method": 4} if kind == "WEBP" else {"optimize": False}
    with _aside(path) as partial:
        first.save(
            partial,
            format=kind,
            save_all=True,
            append_images=rest,
            duration=[end - start for start, end in pairwise([0, *ends])],
            loop=0,
            **options,
        )
    return path


def write_image(path: Path, frame_HWC: Frames) -> Path:
    """Write a PNG, or with the suffix .webp a WebP without loss. Raises OsoraError when the disk refuses."""
    kind = "WEBP" if path.suffix == ".webp" else "PNG"
    with _aside(path) as partial:
        Image.fromarray(frame_HWC).save(partial, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
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
