"""Files that hold pictures: which are images, how a video is opened, and what makes one unreadable."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import OsoraError

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
)

MAX_PIXELS = 2**26
"""Largest picture that is decoded, 8192 x 8192: a tiny file may claim any size (a decompression bomb)."""

MAX_SECONDS = 6 * 3600
"""Longest video that is opened: what is longer is a recording of a stream, or a header that lies."""

MAX_WORK = 2**36
"""Most pixels that are decoded for one window: 40 minutes of 1280x720 at 30 frames per second. A small file of still pictures
may go on for days, and one without key frames makes every window start at its beginning."""

_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
_HEADER_ONLY = {"probesize": "32", "analyzeduration": "1"}
"""An mp4's header has everything; without this the first frames would be decoded at opening, up to ten times slower."""


class UnreadableClip(OsoraError):  # noqa: N818  # reads as what it is: a clip that cannot be read
    """A file that is missing, is no picture, is damaged or too short. The message starts with its path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def is_image(path: str) -> bool:
    """Return whether a file is a still image, by its suffix; everything else is opened as a video."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_mp4(path: str) -> bool:
    """Return whether a file starts like an mp4 or QuickTime file."""
    with Path(path).open("rb") as file:
        return file.read(8)[4:] in _MP4_BOXES


@contextmanager
def open_video(path: str, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and its first stream of moving pictures; cover art does not count.

    Raises UnreadableClip for anything that goes wrong in here or in the body.
    """
    with reported(path), _open(path) as container:
        stream = _first_video(path, container)
        if stream.width * stream.height > MAX_PIXELS:
            raise UnreadableClip(path, f"{stream.width}x{stream.height} is more than {MAX_PIXELS} pixels")
        seconds = (container.duration or 0) / av.time_base
        if seconds > MAX_SECONDS:
            raise UnreadableClip(
                path, f"{seconds / 3600:.1f} hours are more than {MAX_SECONDS // 3600}: cut it into clips"
            )
        # Sizes that only the pictures tell, and that may change from one to the next, are the decoder's to refuse.
        # It counts what it aligns to its own block sizes too, hence the factor.
        stream.codec_context.options = {"max_pixels": str(2 * MAX_PIXELS)}
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO" if threads > 1 else "SLICE"
        yield container, stream


class Effort:
    """How much was decoded for one window, in pixels; raises UnreadableClip when it becomes more than `MAX_WORK`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pixels = 0

    def add(self, frame: VideoFrame) -> None:
        """Count a decoded frame."""
        self.pixels += frame.width * frame.height
        if self.pixels > MAX_WORK:
            raise UnreadableClip(
                self.path,
                f"more than {MAX_WORK} pixels were decoded for one window: cut it into clips",
            )


@contextmanager
def reported(path: str) -> Iterator[None]:
    """Turn what a missing, foreign or damaged file raises into an UnreadableClip."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        is_plain = isinstance(error, UnidentifiedImageError) or not error.strerror
        raise UnreadableClip(path, str(error) if is_plain else str(error.strerror)) from error
    except (Image.DecompressionBombError, ValueError, SyntaxError) as error:  # Pillow's, for damaged images
        raise UnreadableClip(path, str(error)) from error


def read_image(path: str) -> Pixels:
    """Return an image as (H, W, 3) RGB as a person sees it: its EXIF orientation is applied. Raises UnreadableClip."""
    with reported(path), _image(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def image_size(path: str) -> tuple[int, int]:
    """Return (height, width) of an image as a person sees it, from its header. Raises UnreadableClip."""
    with reported(path), _image(path) as image:
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


_EXIF_ORIENTATION = 0x0112
_EXIF_TURNED = frozenset({5, 6, 7, 8})


@contextmanager
def _image(path: str) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns above a limit of its own; the limit here is lower and is an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path)
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableClip(path, f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels")
        yield image


def _open(path: str) -> InputContainer:
    if not Path(path).is_file():
        raise UnreadableClip(path, "is a folder or a device" if Path(path).exists() else "No such file or directory")
    if not is_mp4(path):
        return av.open(path)
    container = av.open(path, format="mp4", options=_HEADER_ONLY)
    if any(not stream.width or not stream.height for stream in container.streams.video):
        container.close()  # a header that leaves the picture to the first frame: rare, and worth the longer look
        container = av.open(path, format="mp4")
    return container


def _first_video(path: str, container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise UnreadableClip(path, "has no video stream")
