"""Bringing batches to the device while the step before is computed, through a fixed number of page-locked buffers."""

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from opensora_cli.data.dataset import Batch

AHEAD = 2
"""Batches on the device, with the one that is computed, and page-locked buffers: the next is copied meanwhile."""


@dataclass(frozen=True)
class Sent:
    """A batch whose copy to the device was started, and the event that ends it."""

    batch: Batch
    arrived: torch.cuda.Event


class Transfer(Protocol):
    """The two halves of a copy: `send` runs in a thread of its own, `receive` in the thread that computes."""

    def send(self, batch: Batch) -> Sent:
        """Start the copy of a batch."""
        ...

    def receive(self, sent: Sent) -> Batch:
        """Make the computation wait for the copy, and return the batch on the device."""
        ...


class PinnedTransfer:
    """Copies to a CUDA device on a stream of its own, through `AHEAD` page-locked buffers that are used over and over.

    Pinning is slow and what is pinned cannot be swapped out, so a buffer is only made anew when a batch is larger than it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = [torch.empty(0, dtype=torch.uint8) for _ in range(AHEAD)]
        self._copied: list[torch.cuda.Event | None] = [None] * AHEAD
        self._turn = 0

    def send(self, batch: Batch) -> Sent:
        """Fill the buffer whose turn it is, once its last copy has ended, and start the copy to the device."""
        turn, self._turn = self._turn, (self._turn + 1) % AHEAD
        tensors = batch.tensors()
        if (last := self._copied[turn]) is not None:
            last.synchronize()
        places = self._places(turn, tensors)
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            there = [
                place.copy_(tensor).to(self.device, non_blocking=True)
                for tensor, place in zip(tensors, places, strict=True)
            ]
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._stream)
        self._copied[turn] = arrived
        return Sent(batch.with_tensors(there), arrived)

    def receive(self, sent: Sent) -> Batch:
        """Let the current stream wait for the copy, and keep the batch's memory until that stream is done with it."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(sent.arrived)
        for tensor in sent.batch.tensors():
            tensor.record_stream(stream)
        return sent.batch

    def _places(self, turn: int, tensors: list[Tensor]) -> list[Tensor]:
        """Return a part of the buffer for each tensor, every one at a multiple of 64 bytes."""
        starts = [0]
        for tensor in tensors:
            starts.append(starts[-1] + -(-tensor.nbytes // 64) * 64)
        if self._buffers[turn].nbytes < starts[-1]:
            self._buffers[turn] = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)
        buffer = self._buffers[turn]
        return [
            buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for start, tensor in zip(starts, tensors, strict=False)
        ]


def prefetched(batches: Iterable[Batch], transfer: Transfer) -> Iterator[Batch]:
    """Yield the batches in order, each while the next one is on its way to the device.

    What reading them raises is raised here, at its place in the order. Leaving early ends the thread that reads.
    """
    room = threading.Semaphore(AHEAD)
    left = threading.Event()
    arriving: queue.SimpleQueue[Sent | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for batch in batches:
                room.acquire()
                if left.is_set():
                    return
                arriving.put(transfer.send(batch))
        except BaseException as error:  # raised again in the thread that computes
            arriving.put(error)
        else:
            arriving.put(None)

    reader = threading.Thread(target=read, name="prefetch", daemon=True)
    reader.start()
    try:
        while (item := arriving.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield transfer.receive(item)
            room.release()  # the batch before this line is done with: another may come
    finally:
        left.set()
        room.release()
        reader.join()
