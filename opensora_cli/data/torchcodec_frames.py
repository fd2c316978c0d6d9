"""Reading frames with torchcodec, for machines where it loads. PyAV still says where in the file they are.

torchcodec is no dependency: its builds fit one release of torch each.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from opensora_cli.data import video
from opensora_cli.data.display_matrix import upright
from opensora_cli.data.media import MAX_WORK, Pixels, UnreadableClip, is_mp4, open_video
from schemas.errors import UsageError


def video_decoder() -> Any:
    """Return torchcodec's VideoDecoder. Raises UsageError where the package is missing or does not load."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:  # any of these where its libraries do not fit
        first_line = str(error).strip().split("\n", 1)[0]
        raise UsageError(
            f'dataset.reader = "torchcodec": torchcodec does not load here ({type(error).__name__}: {first_line}). Install the '
            'release that its compatibility table names for your torch, with FFmpeg, or set dataset.reader = "pyav".'
        ) from error
    return VideoDecoder


def read_frames(path: str, indices: Sequence[int], *, threads: int = 1) -> Iterator[Pixels]:
    """Yield the frames at `indices` like `video.read_frames`, which reads what torchcodec's releases disagree about.

    That is pictures turned for display, and files whose packets leave doubt which frame is which.
    """
    places = video.plain_places(path, indices)
    with open_video(path) as (_, stream):
        number, pixels = stream.index, stream.width * stream.height
        plain = places is not None and is_mp4(path) and upright(path, stream.id)
    if not plain or places is None:
        return video.read_frames(path, indices, threads=threads)
    if pixels * len(places) > MAX_WORK:
        raise UnreadableClip(path, f"the window has more than {MAX_WORK} pixels")
    return _decoded(path, places, number, threads)


def _decoded(path: str, places: Sequence[int], stream: int, threads: int) -> Iterator[Pixels]:
    decoder_class = video_decoder()
    try:
        decoder = decoder_class(path, stream_index=stream, dimension_order="NHWC", num_ffmpeg_threads=threads)
        frames_THWC = decoder.get_frames_at(indices=list(places)).data
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ) as error:  # what it raises for damaged files and frames behind the end
        raise UnreadableClip(path, str(error).strip().split("\n", 1)[0]) from error
    yield from frames_THWC.numpy()
