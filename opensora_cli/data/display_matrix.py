"""How a file says that its pictures are turned for display, read from its header without decoding.

Sources: ISO/IEC 14496-12, boxes `mvhd` and `tkhd`: a 3x3 matrix of fixed-point numbers, written row by row; RFC 9559
(Matroska), element `ProjectionPoseRoll`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CONTAINERS = (b"moov", b"trak")
_EBML = b"\x1a\x45\xdf\xa3"
_POSE_ROLL = b"\x76\x75"
_LONGEST_HEADER = 1 << 20
_LINEAR = (0, 1, 3, 4)
"""Where the part of a matrix stands that turns: the rest moves the picture."""


def quarter_turned(path: str, track: int) -> bool | None:
    """Return whether a track is shown turned by 90 or 270 degrees; None where its boxes don't give a plain answer."""
    movie, matrix = _matrices(path, track)
    return _combine(movie, matrix)


def upright(path: str, track: int) -> bool:
    """Return whether the boxes say that a track is shown as it is stored: neither turned nor mirrored."""
    movie, matrix = _matrices(path, track)
    return _combine(movie, matrix) is False and matrix is not None and matrix[0] > 0 and matrix[3] > 0


def _matrices(path: str, track: int) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Return the matrices of the movie and of a track; None for one that is not found."""
    movie: tuple[int, ...] | None = None
    with Path(path).open("rb") as file:
        end = file.seek(0, 2)
        for kind, start, size in _boxes(file, 0, end):
            if kind == b"mvhd":
                movie = _matrix(_read(file, start, size), 36, 48)
            elif kind == b"tkhd":
                body = _read(file, start, size)
                if _track_id(body) == track:
                    return movie, _matrix(body, 40, 52)
    return movie, None


def matroska_upright(path: str, first_packet: int) -> bool:
    """Return whether a Matroska file turns no picture: its header, up to the first packet, has no roll element.

    The element's number may stand there by chance; then the answer is False, and a decoded frame has to tell.
    """
    with Path(path).open("rb") as file:
        head = file.read(min(first_packet, _LONGEST_HEADER))
    return head.startswith(_EBML) and first_packet <= _LONGEST_HEADER and _POSE_ROLL not in head


def _combine(movie: tuple[int, ...] | None, track: tuple[int, ...] | None) -> bool | None:
    if movie is None or track is None or movie[1] or movie[2] or movie[0] <= 0 or movie[3] <= 0:
        return None
    a, b, c, d = track
    if a and d and not b and not c:
        return False
    return True if b and c and not a and not d else None


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start of the body, its size) of every box up to `end`, and of what is in the movie and its tracks."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", _read(file, start + 8, 8).ljust(8, b"\0"))
            header = 16
        size = size or end - start
        if size < header:
            return
        if kind in _CONTAINERS:
            yield from _boxes(file, start + header, min(start + size, end))
        else:
            yield kind, start + header, size - header
        start += size


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(min(size, 256))


def _track_id(body: bytes) -> int | None:
    at = 20 if body[:1] == b"\1" else 12
    return int.from_bytes(body[at : at + 4], "big") if len(body) >= at + 4 else None


def _matrix(body: bytes, at: int, at_64_bit: int) -> tuple[int, ...] | None:
    """Return the turning part (a, b, c, d) of the matrix; its place depends on the box's version."""
    at = at_64_bit if body[:1] == b"\1" else at
    if len(body) < at + 36:
        return None
    matrix = struct.unpack(">9i", body[at : at + 36])
    return tuple(matrix[place] for place in _LINEAR)
