"""Frozen weights in host memory: packed into one piece, which a GPU can read by itself."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes that every tensor in a pack starts at a multiple of, as allocations on a GPU do: kernels may count on it."""
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device


@dataclass(frozen=True)
class _Place:
    tensor: Tensor
    start: int
    end: int
    dtype: torch.dtype
    shape: torch.Size

    def within(self, pack_U: Tensor) -> Tensor:
        return pack_U[self.start : self.end].view(self.dtype).view(self.shape)


class Pack:
    """Tensors that live one after the other in `host`, a piece of host memory, and can be pointed to a copy of it.

    `pinned` memory is copied to a GPU without the processor's help. It is pinned where it lies: PyTorch's allocator of
    pinned memory would round the size up to a power of two.
    """

    def __init__(self, tensors: Sequence[Tensor], *, pinned: bool) -> None:
        self._places: list[_Place] = []
        end = 0
        for tensor in tensors:
            start = -(-end // ALIGNMENT) * ALIGNMENT
            end = start + tensor.nbytes
            self._places.append(_Place(tensor, start, end, tensor.dtype, tensor.shape))
        self.nbytes = end
        self.host = torch.empty(end, dtype=torch.uint8)
        for place in self._places:
            place.within(self.host).copy_(place.tensor.detach())
            place.tensor.data = place.within(self.host)
        if pinned and end:
            _pin(self.host)

    def point_to(self, pack_U: Tensor) -> None:
        """Let the tensors be those of a copy, which may be larger than the pack."""
        for place in self._places:
            place.tensor.data = place.within(pack_U)

    def rest(self) -> None:
        """Let the tensors be those in host memory again; frozen ones have nothing to bring back."""
        self.point_to(self.host)


def _pin(host_U: Tensor) -> None:
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    torch.cuda.check_error(int(runtime.cudaHostRegister(host_U.data_ptr(), host_U.nbytes, PORTABLE)))
    weakref.finalize(host_U, runtime.cudaHostUnregister, host_U.data_ptr()).atexit = False  # CUDA may be gone by then
