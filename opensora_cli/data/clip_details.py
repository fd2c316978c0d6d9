"""What else there is to know of a clip: codec, pixel format, duration, sound, rotation, even or uneven frame rate."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median

from PIL import Image

from opensora_cli.data.media import UnreadableClip, is_image, open_video, reported
from opensora_cli.data.packets import PacketLog, codec_name, packets_of

FINE_TICKS = 3
"""Ticks of a clip's clock between two frames from which on one tick more or less is rounding, not another rate."""
_EXIF_ORIENTATION = 0x0112
_EXIF_CLOCKWISE = {3: 180, 4: 180, 5: 270, 6: 90, 7: 270, 8: 90}


@dataclass(frozen=True)
class ClipDetails:
    """Facts about a file; None where there is none, as the duration of an image."""

    codec: str
    pixel_format: str | None
    duration: float | None
    """Seconds from the first frame's start to the last one's end."""
    has_audio: bool
    rotation: int
    """Degrees, clockwise, by which players turn the stored pictures: 0, 90, 180 or 270 nearly always."""
    variable_frame_rate: bool


def clip_details(path: str) -> ClipDetails:
    """Return the details of a video or image file: reads every packet and decodes one frame. Raises UnreadableClip."""
    if is_image(path):
        return _image_details(path)
    with open_video(path) as (container, stream):
        log = PacketLog(codec_name(stream))
        for packet in packets_of(container, stream):
            log.add(packet)
        has_audio = bool(container.streams.audio)
        codec, clock = codec_name(stream), stream.time_base or Fraction(1)
    with open_video(path) as (container, stream):
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise UnreadableClip(path, "no frame of it can be decoded")
        # Where a packet may not be one picture, only the pictures themselves tell their times.
        times = log.shown if not log.doubt else sorted(frame.pts or 0 for frame in (first, *frames))
    return ClipDetails(
        codec, first.format.name, _duration(times, log.end, clock), has_audio, -first.rotation % 360, _is_uneven(times)
    )


def _duration(times: list[int], end: int, clock: Fraction) -> float | None:
    """Return seconds; a last frame without a duration of its own lasts as long as the others do."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    stop = end if end > times[-1] else times[-1] + (round(median(steps)) if steps else 0)
    return round(float((stop - times[0]) * clock), 6) or None


def _is_uneven(times: list[int]) -> bool:
    """Return whether frames follow one another at uneven distances, beyond the rounding of their clock."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    if not steps:
        return False
    usual = median(steps)
    rounding = 1 if usual >= FINE_TICKS else 0
    return any(abs(step - usual) > rounding for step in steps)


def _image_details(path: str) -> ClipDetails:
    with reported(path), Image.open(path) as image:
        turned = _EXIF_CLOCKWISE.get(image.getexif().get(_EXIF_ORIENTATION, 1), 0)
        return ClipDetails((image.format or "").lower(), image.mode, None, False, turned, False)
