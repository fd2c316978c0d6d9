"""Which library reads the frames of training clips: all of them give the same frames under the same indices."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from opensora_cli.data import torchcodec_frames, video
from opensora_cli.data.media import Pixels
from schemas.data import ReaderName

FrameReader = Callable[[str, Sequence[int]], Iterator[Pixels]]
"""(path, ascending indices) -> frames (H, W, 3) uint8 as a person sees them; raises UnreadableClip."""


def frame_reader(name: ReaderName, threads: int) -> FrameReader:
    """Return a reader that decodes with so many threads.

    Raises UsageError, at once and not with the first clip, when the library it needs is missing or does not load.
    """
    match name:
        case "pyav":
            return partial(video.read_frames, threads=threads)
        case "torchcodec":
            torchcodec_frames.video_decoder()
            return partial(torchcodec_frames.read_frames, threads=threads)
