"""Host memory that a state is copied to, so that training can change it while a checkpoint is still being written."""

import ctypes
import threading

import torch
from torch import Tensor

SLAB = 2**30
"""Bytes that are asked for at once. Pinned memory is rounded up to a power of two, which would double some tensors."""
_ALIGNMENT = 256


class Staging:
    """Copies of tensors in host memory. Kept from save to save, since new memory costs more than copying into it."""

    def __init__(self, device: torch.device, *, keep: bool) -> None:
        self._keep = keep
        self._pinned = device.type == "cuda"
        self._slab = torch.empty(0, dtype=torch.uint8)
        self._used = 0
        self._buffers: dict[str, Tensor] = {}
        self._staged: dict[str, Tensor] = {}
        self._later: dict[str, Tensor] = {}
        # A stream of its own, so that copies of the weights and the next forward pass go on side by side.
        self._stream = torch.cuda.Stream(device) if self._pinned else None  # type: ignore[no-untyped-call]

    def add(self, name: str, tensor: Tensor) -> None:
        """Copy a tensor now: what changes it afterwards, on the stream that is current, waits its turn."""
        self._staged[name] = self._copied(name, tensor)

    def add_later(self, name: str, tensor: Tensor) -> None:
        """Have a tensor copied by `Copy.finish`; until `Copy.wait` has been called nothing may change it."""
        self._later[name] = tensor

    def begin(self) -> "Copy":
        """Return the copy of everything that was added since the last one."""
        staged, later = self._staged, self._later
        self._staged, self._later = {}, {}
        return Copy(self, staged, later, self._stream)

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors on the stream that is current."""
        return {name: self._copied(name, tensor) for name, tensor in tensors.items()}

    def forget(self) -> None:
        """Let go of the memory, unless the next save is to use it again."""
        if not self._keep:
            self._buffers, self._slab, self._used = {}, torch.empty(0, dtype=torch.uint8), 0

    def _copied(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[name] = self._room_for(tensor)
        if tensor.device.type == "cpu" and tensor.is_contiguous():
            # Not copy_: the threads that it shares a tensor out to wait for one another after each, at twice the cost of
            # `torch.save` where a core is busy with something else.
            ctypes.memmove(buffer.data_ptr(), tensor.data_ptr(), tensor.nbytes)
        else:
            buffer.copy_(tensor, non_blocking=self._pinned)
        return buffer

    def _room_for(self, tensor: Tensor) -> Tensor:
        """Return memory of a tensor's shape and type, behind what the slab holds already or in a new one."""
        if self._used + tensor.nbytes > len(self._slab):
            self._slab = torch.empty(max(SLAB, tensor.nbytes), dtype=torch.uint8, pin_memory=self._pinned)
            self._used = 0
        room = self._slab[self._used : self._used + tensor.nbytes]
        self._used += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        return room.view(tensor.dtype).view(tensor.shape)


class Copy:
    """The copy of one save: `finish` makes it on the writer's thread, `wait` is called before the tensors change.

    On CUDA it goes over a stream of its own, behind everything that was asked of the training stream before the save.
    """

    def __init__(
        self, staging: Staging, staged: dict[str, Tensor], later: dict[str, Tensor], stream: torch.cuda.Stream | None
    ) -> None:
        self._staging = staging
        self._staged = staged
        self._later = later
        self._asked = threading.Event()  # all copies were made, or on CUDA asked for
        self._stream = stream
        self._arrived: torch.cuda.Event | None = None
        self._computed = torch.cuda.current_stream(stream.device).record_event() if stream is not None else None

    def finish(self) -> dict[str, Tensor]:
        """Copy what was left for later, and return everything when it is there."""
        later, self._later = self._later, {}
        try:
            # The stream's device becomes this thread's, which begins with the first one.
            with torch.cuda.stream(self._stream):
                if self._stream is not None and self._computed is not None:
                    self._stream.wait_event(self._computed)
                staged = self._staged | self._staging.copy(later)
                if self._stream is not None:
                    self._arrived = self._stream.record_event()
        finally:
            self._asked.set()
        if self._arrived is not None:
            self._arrived.synchronize()  # `later` keeps the tensors' memory until then
        self._staging.forget()
        return staged

    def wait(self) -> None:
        """Wait until the tensors may change: on CUDA the current stream waits, and the host only for its own tensors."""
        self._asked.wait()
        if self._stream is not None and self._arrived is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._arrived)
