"""Host memory that a state is copied to while training stands still, so that writing it can wait."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

SLAB = 2**30
"""Bytes that are asked for at once. Pinned memory is rounded up to a power of two, which would double some tensors."""
_ALIGNMENT = 256


class Staging:
    """Copies of tensors in host memory. Kept from save to save, since new memory costs more than copying into it.

    Copies from a GPU go to pinned memory on the stream that training runs on: the host does not wait for them, and
    what changes the tensors afterwards waits its turn.
    """

    def __init__(self, device: torch.device, *, keep: bool) -> None:
        self._keep = keep
        self._pinned = device.type == "cuda"
        self._slab = torch.empty(0, dtype=torch.uint8)
        self._used = 0
        self._buffers: dict[str, Tensor] = {}
        self._staged: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Start to copy a tensor."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[name] = self._room_for(tensor)
        if tensor.device.type == "cpu" and tensor.is_contiguous():
            # Not copy_: the threads that it shares a tensor out to wait for one another after each, at twice the cost of
            # `torch.save` where a core is busy with something else.
            ctypes.memmove(buffer.data_ptr(), tensor.data_ptr(), tensor.nbytes)
        else:
            buffer.copy_(tensor, non_blocking=self._pinned)
        self._staged[name] = buffer

    def finish(self) -> Callable[[], dict[str, Tensor]]:
        """Return what waits for the copies, on whatever thread it is called, and gives them."""
        staged, self._staged = self._staged, {}
        if not self._keep:
            self._buffers, self._slab, self._used = {}, torch.empty(0, dtype=torch.uint8), 0
        if not self._pinned:
            return lambda: staged
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # so in some versions of torch
        copied.record()

        def arrived() -> dict[str, Tensor]:
            copied.synchronize()
            return staged

        return arrived

    def _room_for(self, tensor: Tensor) -> Tensor:
        """Return memory of a tensor's shape and type, behind what the slab holds already or in a new one."""
        if self._used + tensor.nbytes > len(self._slab):
            self._slab = torch.empty(max(SLAB, tensor.nbytes), dtype=torch.uint8, pin_memory=self._pinned)
            self._used = 0
        room = self._slab[self._used : self._used + tensor.nbytes]
        self._used += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        return room.view(tensor.dtype).view(tensor.shape)
