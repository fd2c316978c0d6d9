"""What a file's packets tell about its pictures without decoding: how many will be shown, and in which order."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:  # PyAV's packets are generic for the type checker alone
    VideoPacket = Packet

ONE_PICTURE_PER_PACKET = frozenset(
    {"av1", "dnxhd", "ffv1", "gif", "h264", "hevc", "mjpeg", "mpeg4", "png", "prores", "rawvideo", "vp9"}
)
"""Codecs of which every packet becomes a picture. VP8 has hidden pictures in packets of their own, MPEG-2 fields, and so on."""


class PacketLog:
    """The packets read so far, as the pictures they will become.

    `shown` has the timestamp of every picture in order of display; packets that an edit list discards are not among them.
    `doubt` says why one packet may not be one picture; then only decoding can tell.
    """

    def __init__(self, codec: str, *, from_start: bool = True) -> None:
        self.shown: list[int] = []
        self.doubt = "" if codec in ONE_PICTURE_PER_PACKET else f"{codec} packets are not always pictures"
        self._from_start = from_start
        self._first: int | None = None
        self.end = 0
        """Timestamp at which the last picture of all ends."""

    def add(self, packet: VideoPacket) -> None:
        """Take the next packet, in order of decoding."""
        pts = packet.pts
        if pts is None:
            self.doubt = "a packet has no timestamp"
            return
        if packet.is_corrupt:
            self.doubt = "a packet is damaged"
        if self._first is None:
            self._first = pts
            if not packet.is_keyframe:
                self.doubt = "it starts between key frames"
        elif self._from_start and pts < self._first and not packet.is_discard:
            self.doubt = "pictures before the first key frame"
        if packet.is_discard:
            return
        place = bisect_left(self.shown, pts)
        if place < len(self.shown) and self.shown[place] == pts:
            self.doubt = "two packets have the same timestamp"
        insort(self.shown, pts)
        self.end = max(self.end, pts + (packet.duration or 0))

    def settled(self, packet: VideoPacket) -> int:
        """Return how many pictures have their final place: no later packet is shown before the time this one is decoded."""
        return 0 if packet.dts is None else bisect_left(self.shown, packet.dts)

    def place(self, packet: VideoPacket) -> int:
        """Return how many of the pictures known so far are shown before this one."""
        return 0 if packet.pts is None else bisect_left(self.shown, packet.pts)

    def rate(self, time_base: Fraction) -> Fraction | None:
        """Return the average pictures per second; None when the timestamps don't tell."""
        if not self.shown:
            return None
        last_duration = self.end - self.shown[-1]
        pictures = len(self.shown) if last_duration > 0 else len(self.shown) - 1
        span = (self.end - self.shown[0]) * time_base
        return Fraction(pictures) / span if span > 0 and pictures > 0 else None


def codec_name(stream: VideoStream) -> str:
    """Return the name of the format, whichever decoder reads it: av1, not libdav1d."""
    return stream.codec_context.codec.canonical_name


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """Yield the packets that carry data; the end of the file yields one more that does not."""
    return (packet for packet in container.demux(stream) if packet.size)


def header_counts(stream: VideoStream, file_size: int) -> bool:
    """Return whether the header's frame count can be trusted.

    It can where the container lists every frame, the list starts with a key frame, an edit list discards none of them,
    and all of them lie inside the file.
    """
    entries = stream.index_entries
    if not stream.frames or len(entries) != stream.frames or codec_name(stream) not in ONE_PICTURE_PER_PACKET:
        return False
    if not entries[0].is_keyframe:
        return False
    return all(not entry.is_discard and entry.size and entry.pos + entry.size <= file_size for entry in entries)
