"""Reading frames: only the window that is wanted is decoded, from the key frame before it.

Frame i is the i-th frame that a full decode of the file shows, whatever the container says. Where the frame rate varies, it
is the frame that is on the screen at i times the average duration, so that equal steps in i are equal steps in time.
Legend: T frames, C channels, H W pixels.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import av.error
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from einops import rearrange
from torch import Tensor

from opensora_cli.data.frame_times import even_places, is_even
from opensora_cli.data.media import Effort, Pixels, UnreadableClip, is_image, open_video, read_image
from opensora_cli.data.packets import PacketLog, VideoPacket, codec_name, header_counts, packets_of
from opensora_cli.data.probe import probe
from opensora_cli.data.transforms import transform_image, transform_video


def read_clip(path: str, indices: Sequence[int], *, threads: int = 1) -> Tensor:
    """Return the frames at `indices` (ascending, 0 is the first) as uint8 RGB (T, H, W, 3), as a person sees them.

    An image file is a clip of one frame. Raises UnreadableClip for a file that is damaged or has not that many frames.
    """
    return torch.stack([torch.from_numpy(frame_HWC) for frame_HWC in read_frames(path, indices, threads=threads)])


def read_frames(path: str, indices: Sequence[int], *, threads: int = 1) -> Iterator[Pixels]:
    """Yield the frames at `indices` one by one, (H, W, 3) uint8 each, so that a long clip never is in memory as a whole.

    Raises like `read_clip`, and ValueError when the indices are empty, negative or not ascending.
    """
    _must_ascend(indices)
    if is_image(path):
        if indices[-1] > 0:
            raise UnreadableClip(path, f"frame {indices[-1]} is wanted of an image")
        picture_HWC = read_image(path)
        return iter([picture_HWC] * len(indices))
    return _as_pixels(path, indices, _decoded(path, indices, threads))


def read_reference(path: str, *, frames: int, height: int, width: int, tail: bool = False) -> Tensor:
    """Return an image or the first frames of a video (with `tail`, the last) as (3, T, height, width) in [-1, 1].

    The picture is made to cover the size and its middle is taken. Raises OsoraError when the file has too few frames.
    """
    if is_image(path):
        if frames != 1:
            raise UnreadableClip(path, f"{frames} frames are needed and an image has one; give a video")
        x_CHW = transform_image(read_clip(path, [0])[0], "resize_crop", height, width)
        return rearrange(x_CHW, "c h w -> c 1 h w")
    there = probe(path).num_frames
    if there < frames:
        raise UnreadableClip(path, f"{frames} frames are needed, it has {there}")
    first = there - frames if tail else 0
    parts = [
        transform_video(torch.from_numpy(frame_HWC)[None], "resize_crop", height, width)
        for frame_HWC in read_frames(path, range(first, first + frames))
    ]
    return rearrange(torch.cat(parts), "t c h w -> c t h w")


def _must_ascend(indices: Sequence[int]) -> None:
    if not indices or indices[0] < 0 or any(b < a for a, b in pairwise(indices)):
        raise ValueError(f"frame indices must be ascending and not negative, not {list(indices)[:8]}")


def _as_pixels(path: str, indices: Sequence[int], frames: Iterator[VideoFrame]) -> Iterator[Pixels]:
    reformatter = VideoReformatter()
    size: tuple[int, int] | None = None
    for frame in frames:
        if size not in (None, (frame.height, frame.width)):
            raise UnreadableClip(
                path, f"its picture changes size from {size} to {(frame.height, frame.width)} at frame times"
            )
        size = frame.height, frame.width
        # One thread: workers are many already, and starting more takes longer than a small picture.
        frame_HWC = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        # The rotation is counterclockwise, and so is rot90.
        yield np.ascontiguousarray(np.rot90(frame_HWC, round(frame.rotation / 90) % 4))


def _decoded(path: str, indices: Sequence[int], threads: int) -> Iterator[VideoFrame]:
    """Yield the frame of each index: from a window where the packets leave no doubt, else from a decode of everything."""
    wanted, starts = _layout(path, indices)
    effort = Effort(path)
    done = 0
    for start in starts:
        for frame in _from_window(path, wanted[done:], start, threads, effort):
            yield frame
            done += 1
        if done == len(wanted):
            return
    yield from _from_all(path, wanted[done:], threads, effort)


def plain_places(path: str, indices: Sequence[int]) -> list[int] | None:
    """Return the places of the wanted frames where every packet is one picture; None where only decoding tells.

    Raises like `read_frames`.
    """
    _must_ascend(indices)
    with open_video(path) as (_, stream):
        counted = header_counts(stream, Path(path).stat().st_size)
    return _layout(path, indices)[0] if counted else None


def _layout(path: str, indices: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the places of the wanted frames in order of display, and the packets at which reading may begin.

    Those are the key frame before the window, the one before that, and the start.
    """
    with open_video(path) as (container, stream):
        entries = stream.index_entries
        listed = bool(stream.frames) and len(entries) == stream.frames
        listed = listed and not any(entry.is_discard for entry in entries)
        if not (listed and is_even([entry.timestamp for entry in entries])):
            indices = _places_in_time(container, stream, indices)
        if not listed:
            return list(indices), [0]
        place = min(indices[0], len(entries) - 1)
        keys = (number for number in range(place, 0, -1) if entries[number].is_keyframe)
        return list(indices), [*islice(keys, 2), 0]


def _places_in_time(container: InputContainer, stream: VideoStream, indices: Sequence[int]) -> list[int]:
    """Read the timestamps of all packets and return the frames at even steps in time."""
    log = PacketLog(codec_name(stream))
    try:
        for packet in packets_of(container, stream):
            log.add(packet)
            if log.doubt:
                return list(indices)
    except av.error.InvalidDataError:
        return list(indices)  # damaged further on: whether the window is, reading it will tell
    return even_places(log.shown, log.end, indices) if log.shown else list(indices)


def _from_window(path: str, indices: Sequence[int], start: int, threads: int, effort: Effort) -> Iterator[VideoFrame]:
    """Yield the frames, decoded from a key frame at or after packet `start`; stop early where this cannot be relied on."""
    with open_video(path, threads) as (container, stream):
        if start and not _seek(container, stream, start):
            return
        log = PacketLog(codec_name(stream), from_start=start == 0)
        held = _read_window(packets_of(container, stream), log, indices[0] - start, indices[-1] - start)
        if log.doubt or len(log.shown) <= indices[-1] - start:
            return
        wanted = [log.shown[index - start] for index in indices]
        keys = [place for place, packet in enumerate(held) if packet.is_keyframe and (packet.pts or 0) <= wanted[0]]
        if keys:
            yield from _decode(stream, held[keys[-1] :], wanted, effort)


def _seek(container: InputContainer, stream: VideoStream, start: int) -> bool:
    """Go to a key packet by its number; False when the container leads elsewhere."""
    entry = stream.index_entries[start]
    container.seek(entry.timestamp, stream=stream, backward=True, any_frame=False)
    for packet in packets_of(container, stream):
        if packet.pos != entry.pos:
            return False
        container.seek(entry.timestamp, stream=stream, backward=True, any_frame=False)
        return True
    return False


def _read_window(packets: Iterator[VideoPacket], log: PacketLog, first: int, last: int) -> list[VideoPacket]:
    """Read until frame `last` has its place, and return the packets from a key frame before frame `first`."""
    held: list[VideoPacket] = []
    key = 0
    for packet in packets:
        log.add(packet)
        if packet.is_keyframe and packet.pts is not None and held:
            # Pictures that are shown before a key frame come right behind it: by the next key frame all of them are known.
            if log.place(held[key]) <= first:
                held, key = held[key:], 0
            key = len(held)
        held.append(packet)
        if log.settled(packet) > last or log.doubt:
            break
    return held


def _decode(
    stream: VideoStream, packets: Sequence[VideoPacket], wanted: Sequence[int], effort: Effort
) -> Iterator[VideoFrame]:
    """Yield the frames with the wanted timestamps, in order; stop at one that is missing or damaged."""
    context = stream.codec_context
    # H.264 marks pictures that no other one is made from; other formats carry more than pictures from frame to frame.
    may_skip = codec_name(stream) == "h264"
    place = 0
    for packet in [*packets, None]:
        before = packet is not None and packet.pts is not None and packet.pts < wanted[0]
        context.skip_frame = "NONREF" if may_skip and before else "DEFAULT"
        try:
            frames = context.decode(packet)
        except av.error.InvalidDataError:
            return
        for frame in frames:
            effort.add(frame)
            while place < len(wanted) and frame.pts == wanted[place] and not frame.is_corrupt:
                yield frame
                place += 1
            if place == len(wanted) or (frame.pts is not None and frame.pts >= wanted[place]):
                return


def _from_all(path: str, indices: Sequence[int], threads: int, effort: Effort) -> Iterator[VideoFrame]:
    wanted = list(indices)
    place = number = 0
    with open_video(path, threads) as (container, stream):
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # a damaged packet: frames are counted over those that decode, as `probe` does
            for frame in frames:
                effort.add(frame)
                while place < len(wanted) and wanted[place] == number:
                    yield frame
                    place += 1
                number += 1
            if place == len(wanted):
                return
    raise UnreadableClip(path, f"frame {wanted[-1]} is wanted, {number} can be decoded")
