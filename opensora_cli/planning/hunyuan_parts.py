"""Memory of the Hunyuan autoencoder where nothing is trained: in parts, as `opensora_models/hunyuan_vae/streaming.py` codes.

A group norm waits for all of its clip, so the features behind it are whole twice: what goes round a residual block, and
what goes through it. With `stream_frames` nothing waits, and every layer on the way holds its own part at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from opensora_cli.planning.coded import Extent
from opensora_cli.planning.precision import STATE
from opensora_models.hunyuan_vae.streaming import PART_BYTES

PAST = 2
"""Frames of the part before that a convolution keeps."""


@dataclass(frozen=True)
class Place:
    """Features of one resolution on their way: `frames` of the whole clip, `part` of them at a time."""

    frames: int
    height: int
    width: int
    part: int
    batch: int
    matrix: int

    def whole(self, channels: int) -> int:
        """Bytes of the clip's features."""
        return self.frames * self._frame(channels)

    def piece(self, channels: int) -> int:
        """Bytes of a part's features."""
        return min(self.part, self.frames) * self._frame(channels)

    def padded(self, channels: int) -> int:
        """Bytes of what a convolution reads of a part: borders and past with it."""
        return (min(self.part, self.frames) + PAST) * self._border_frame(channels)

    def kept(self, channels: int) -> int:
        """Bytes that a convolution keeps of that while others are at work: all of it, or of a large part the past."""
        return self.padded(channels) if self.part <= PAST else PAST * self._border_frame(channels)

    def sums(self, channels: int) -> int:
        """Bytes that come and go while a norm takes in a part: the fp32 deviations, and a copy in fp32 of lower ones."""
        copies = 1 if self.matrix == STATE else 2
        return copies * STATE * self.piece(channels) // self.matrix

    def copies(self, channels: int) -> int:
        """Bytes that come and go while norm and activation, which are computed in fp32, are applied to a lower precision."""
        return 0 if self.matrix == STATE else 2 * STATE * self.piece(channels) // self.matrix

    def down(self, stride: Extent) -> "Place":
        """The resolution behind a strided convolution."""
        frames, height, width = (self.frames, self.height, self.width)
        sizes = ((frames - 1) // stride[0] + 1, (height - 1) // stride[1] + 1, (width - 1) // stride[2] + 1)
        return Place(*sizes, max(1, self.part // stride[0]), self.batch, self.matrix)

    def up(self, stride: Extent, channels: int, streamed: bool) -> "Place":
        """The resolution behind an enlargement, which cuts large parts again unless they are streamed."""
        sizes = 1 + stride[0] * (self.frames - 1), self.height * stride[1], self.width * stride[2]
        part = min(self.part, self.frames)
        if not streamed:
            part = min(part, frames_of_a_part(prod(stride) * self._frame(channels)))
        return Place(*sizes, stride[0] * part, self.batch, self.matrix)

    def _frame(self, channels: int) -> int:
        return self.batch * self.matrix * channels * self.height * self.width

    def _border_frame(self, channels: int) -> int:
        return self.batch * self.matrix * channels * (self.height + 2) * (self.width + 2)


def frames_of_a_part(frame_bytes: int) -> int:
    """Return how many frames the code takes at a time where nothing else decides."""
    return max(1, PART_BYTES // frame_bytes)


@dataclass(frozen=True)
class Step:
    """A residual block (kernel of both convolutions 3), or with `stride` the convolution to the next resolution."""

    place: Place
    into: int
    out: int
    before: Place | None = None
    """Of a convolution to another resolution: where its argument is."""


def waiting_peak(steps: list[Step]) -> int:
    """Return the bytes alive at most in exact coding, where every norm waits for its whole clip."""
    return max(peak for index in range(len(steps)) for peak in _waiting(steps, index))


def _waiting(steps: list[Step], index: int) -> Iterator[int]:
    """Yield what is alive at one block's moments: its norm is done waiting; its first half; its second half."""
    step, place = steps[index], steps[index].place
    if step.before is not None:
        return
    entry, into, out = place.whole(step.into), step.into, step.out
    narrows = into > out
    through = max(entry, 2 * place.whole(out)) if narrows else entry + place.whole(out)
    if index:
        yield from (entry + more for more in _source(steps[index - 1], place.sums(into)))
    held = place.piece(into) if narrows else 0
    yield through + held + max(place.padded(into), place.kept(into) + place.sums(out))
    yield through + held - place.piece(out) + place.padded(into) + place.copies(into)
    around = place.whole(out) if narrows else entry
    second = around + place.whole(out) + place.piece(out)
    yield second + place.padded(out) + max(0, place.copies(out) - place.piece(out))
    behind = steps[index + 1] if index + 1 < len(steps) else None
    if behind is not None and behind.before is not None:
        enlarged = behind.place if behind.place.height > place.height else place
        added = place.piece(out if narrows else into)  # this part of the shortcut is no longer needed
        yield second - added + place.kept(out) + enlarged.padded(out) + behind.place.piece(behind.out)


def _source(last: Step, sums: int) -> Iterator[int]:
    """Yield what is alive beside the features that a norm waits for: the layers that feed it, at work and at rest."""
    if last.before is None:
        yield last.place.padded(last.out)
        yield last.place.kept(last.out) + sums
        return
    enlarged = last.place if last.place.height > last.before.height else last.before
    before = last.before.kept(last.into) + last.before.piece(last.into)
    yield before + enlarged.padded(last.into)
    yield before + enlarged.kept(last.into) + sums


def streamed_peak(steps: list[Step]) -> int:
    """Return the bytes alive at most where nothing waits: what every layer holds, and the largest at work."""
    held, working = 0, 0
    for step in steps:
        place = step.place
        if step.before is not None:
            at = place if place.height > step.before.height else step.before
            held += step.before.piece(step.into) + at.kept(step.into)
            working = max(working, at.padded(step.into) - at.kept(step.into) + place.piece(step.out))
            continue
        held += place.piece(step.into) + place.kept(step.into) + place.piece(step.out) + place.kept(step.out)
        held += place.piece(step.out) if step.into > step.out else 0
        wide = max(step.into, step.out)
        working = max(
            working,
            place.padded(wide) - place.kept(wide) + max(place.piece(wide), place.sums(wide), place.copies(wide)),
        )
    return held + working
