"""Height, width, frames and frame rate of a file, reading as little of it as gives the right answer."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from opensora_cli.data.display_matrix import matroska_upright, quarter_turned
from opensora_cli.data.media import UnreadableClip, image_size, is_image, is_mp4, open_video
from opensora_cli.data.packets import PacketLog, VideoPacket, codec_name, header_counts, packets_of

RATES_AGREE = 0.01
"""Relative difference below which the header's exact rate is preferred to one from rounded timestamps."""

LEADING_PACKETS = 8
"""Packets of an mp4 that are looked at: pictures that need frames before the file's start come right after the first one."""


@dataclass(frozen=True)
class ClipInfo:
    """What a full decode of a file would give; sizes as a person sees them, fps NaN where there is none (images)."""

    height: int
    width: int
    num_frames: int
    fps: float

    @property
    def aspect_ratio(self) -> float:
        """Height divided by width."""
        return self.height / self.width

    @property
    def resolution(self) -> int:
        """Pixels of a frame."""
        return self.height * self.width


def probe(path: str) -> ClipInfo:
    """Return what is in a video or image file.

    The header answers where it lists every frame; else packets are counted; only where those leave doubt are frames decoded.
    Raises UnreadableClip.
    """
    if is_image(path):
        return ClipInfo(*image_size(path), num_frames=1, fps=math.nan)
    with open_video(path) as (container, stream):
        listed = header_counts(stream, Path(path).stat().st_size)
        info = _by_header(path, container, stream) if listed else _by_packets(path, container, stream)
    if info is None and listed:
        with open_video(path) as (container, stream):
            info = _by_packets(path, container, stream)
    return _by_decoding(path) if info is None else info


def _by_header(path: str, container: InputContainer, stream: VideoStream) -> ClipInfo | None:
    turned = quarter_turned(path, stream.id) if is_mp4(path) else None
    if turned is None or not stream.average_rate or _leading_doubt(container, stream):
        return None
    return _info(stream.height, stream.width, turned, stream.frames, stream.average_rate)


def _leading_doubt(container: InputContainer, stream: VideoStream) -> bool:
    log = PacketLog(codec_name(stream))
    for packet, _ in zip(packets_of(container, stream), range(LEADING_PACKETS), strict=False):
        log.add(packet)
    return bool(log.doubt)


def _by_packets(path: str, container: InputContainer, stream: VideoStream) -> ClipInfo | None:
    log = PacketLog(codec_name(stream))
    frame: VideoFrame | None = None
    upright: bool | None = None
    for packet in packets_of(container, stream):
        log.add(packet)
        if log.doubt:
            return None
        if upright is None:
            upright = packet.pos is not None and matroska_upright(path, packet.pos)
        if frame is None and not upright:
            frame = _first_frame(stream, packet)
    if not log.shown or not (frame or upright):
        return None
    picture = frame or stream
    turned = frame is not None and _turned(frame)
    return _info(picture.height, picture.width, turned, len(log.shown), _rate(stream, log))


def _first_frame(stream: VideoStream, packet: VideoPacket) -> VideoFrame | None:
    """Return a frame as soon as one comes out; only a frame tells its display rotation."""
    frames = stream.codec_context.decode(packet)
    if not frames and not packet.is_discard:
        frames = stream.codec_context.decode(None)
    return frames[0] if frames else None


def _by_decoding(path: str) -> ClipInfo:
    with open_video(path) as (container, stream):
        log = PacketLog(codec_name(stream))
        first: VideoFrame | None = None
        count = 0
        for packet in container.demux(stream):
            if packet.size:
                log.add(packet)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # a damaged packet: what still decodes is what counts
            first = first or (frames[0] if frames else None)
            count += len(frames)
        if first is None:
            raise UnreadableClip(path, "no frame of it can be decoded")
        return _info(first.height, first.width, _turned(first), count, _rate(stream, log))


def _rate(stream: VideoStream, log: PacketLog) -> Fraction | None:
    header, measured = stream.average_rate, log.rate(stream.time_base or Fraction(1))
    if not header or not measured:
        return header or measured or stream.guessed_rate
    return header if abs(measured / header - 1) <= RATES_AGREE else measured


def _turned(frame: VideoFrame) -> bool:
    return round(frame.rotation / 90) % 2 == 1


def _info(height: int, width: int, turned: bool, frames: int, rate: Fraction | None) -> ClipInfo:
    fps = math.nan if rate is None else round(float(rate), 3)
    return ClipInfo(width, height, frames, fps) if turned else ClipInfo(height, width, frames, fps)
