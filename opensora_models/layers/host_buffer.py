"""A bounded stretch of host memory in which tensors wait until the backward pass wants them back.

What is packed last is wanted first, so places are stacked in chunks and no free list is needed. On CUDA the chunks are
pinned and copies run on a stream of their own: out while later blocks compute, back a little before they are wanted.
"""

import weakref
from collections import deque
from typing import Self

import torch
from torch import Tensor

CHUNK = 256 * 2**20
"""Bytes that are taken from the host at once. A power of two, which is what a pinned allocation is rounded up to."""
LEAVING = 2
"""Tensors whose copy may still be under way while the device goes on: their memory is not free yet."""
AHEAD = 2
"""Tensors that are fetched before they are wanted: both streams of one block."""


class Place:
    """Part of a chunk, up to `end`; it is free again when the last reference to it goes."""

    def __init__(self, memory: Tensor, end: int) -> None:
        self.memory, self.end = memory, end


class Chunk:
    """Host memory whose places are stacked."""

    def __init__(self, size: int, pinned: bool) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self._places: list[weakref.ref[Place]] = []

    @property
    def places(self) -> list[Place]:
        """Those that somebody holds."""
        return [place for held in self._places if (place := held()) is not None]

    def take(self, size: int) -> Place | None:
        """Return a place of so many bytes on top of the others, or None where there is no room."""
        last = self._places[-1]() if self._places else None
        start = last.end if last is not None else 0
        if start + size > self.memory.numel():
            return None
        place = Place(self.memory[start : start + size], _aligned(start + size))
        self._places.append(weakref.ref(place, self._clear))
        return place

    def _clear(self, _gone: object) -> None:
        """Forget the places on top that nobody holds any more."""
        while self._places and self._places[-1]() is None:
            self._places.pop()


class Waiting:
    """A tensor in host memory, and the way back to its device."""

    def __init__(self, buffer: "HostBuffer", tensor: Tensor, place: Place, before: "Waiting | None") -> None:
        self._buffer, self._place = buffer, place
        self._shape, self._dtype, self._device = tensor.shape, tensor.dtype, tensor.device
        self._before = weakref.ref(before) if before is not None else None
        self._back: tuple[Tensor, torch.cuda.Event | None] | None = None
        buffer.copy(tensor, self._host)

    @property
    def _host(self) -> Tensor:
        return self._place.memory.view(self._dtype).view(self._shape)

    def fetch(self) -> Self:
        """Begin the way back, if it has not begun."""
        if self._back is None:
            tensor = torch.empty(self._shape, dtype=self._dtype, device=self._device)
            self._back = tensor, self._buffer.copy(self._host, tensor, leaves=False)
        return self

    def take(self) -> Tensor:
        """Return the tensor on its device, and begin the way back of those that were packed just before it."""
        self._buffer.arrive()
        found = self.fetch()._back
        assert found is not None
        self._back = None
        tensor, copied = found
        if copied is not None:
            torch.cuda.current_stream(self._device).wait_event(copied)
        earlier: Waiting | None = self
        for _ in range(AHEAD if copied is not None else 0):
            earlier = earlier._before() if earlier is not None and earlier._before is not None else None
            if earlier is not None:
                earlier.fetch()
        return tensor


class HostBuffer:
    """At most `capacity` bytes of host memory for tensors of the backward pass; what finds no room stays on its device.

    Its `pack` and `unpack` are hooks for `torch.autograd.graph.saved_tensors_hooks`.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._chunks: list[Chunk] = []
        self._stream: torch.cuda.Stream | None = None
        self._leaving: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        self._last: weakref.ref[Waiting] | None = None

    @property
    def allocated(self) -> int:
        """Bytes taken from the host so far."""
        return sum(chunk.memory.numel() for chunk in self._chunks)

    @property
    def waiting(self) -> list[Place]:
        """Where tensors wait now."""
        return [place for chunk in self._chunks for place in chunk.places]

    def pack(self, tensor: Tensor) -> Tensor | Waiting:
        """Move a tensor of three or more axes to the host, if there is room: smaller ones are shared by all blocks."""
        if tensor.dim() < 3 or not tensor.is_contiguous():
            return tensor
        place = self._place(tensor.nbytes, tensor.is_cuda)
        if place is None:
            return tensor
        waiting = Waiting(self, tensor, place, self._last() if self._last is not None else None)
        self._last = weakref.ref(waiting)
        return waiting

    def unpack(self, packed: Tensor | Waiting) -> Tensor:
        """Return what was packed, with the same numbers."""
        return packed.take() if isinstance(packed, Waiting) else packed

    def copy(self, source: Tensor, target: Tensor, *, leaves: bool = True) -> torch.cuda.Event | None:
        """Copy between host and device; on CUDA beside the computation, and the event tells when it is done.

        A source that leaves the device is kept until the computation's stream has waited for its copy: memory that was
        given back earlier would be used again before the copy has read it.
        """
        device = source if leaves else target
        if not device.is_cuda:
            target.copy_(source)
            return None
        self._stream = self._stream or torch.cuda.Stream(device.device)
        self._stream.wait_stream(torch.cuda.current_stream(device.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(self._stream)
        if leaves:
            self._leaving.append((source, copied))
            self.arrive(LEAVING)
        return copied

    def arrive(self, remaining: int = 0) -> None:
        """Let the device wait until at most so many copies are under way, and give back the memory of the others."""
        while len(self._leaving) > remaining:
            source, copied = self._leaving.popleft()
            torch.cuda.current_stream(source.device).wait_event(copied)

    def _place(self, size: int, pinned: bool) -> Place | None:
        for chunk in self._chunks:
            if place := chunk.take(size):
                return place
        left = self.capacity - self.allocated
        wanted = max(CHUNK, 1 << (size - 1).bit_length())
        new = min(wanted, 1 << left.bit_length() - 1) if left > 0 else 0
        if size > new:
            return None
        self._chunks.append(Chunk(new, pinned))
        return self._chunks[-1].take(size)


def _aligned(address: int) -> int:
    """Return the next address that suits every dtype."""
    return -(-address // 64) * 64
