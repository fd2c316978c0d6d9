"""Host memory that a state is copied to while training stands still, so that writing it can wait."""

from collections.abc import Callable

import torch
from torch import Tensor


class Staging:
    """Copies of tensors in host memory. Kept from save to save, since new memory costs more than copying into it.

    Copies from a GPU go to pinned memory on the stream that training runs on: the host does not wait for them, and
    what changes the tensors afterwards waits its turn.
    """

    def __init__(self, device: torch.device, *, keep: bool) -> None:
        self._keep = keep
        self._pinned = device.type == "cuda"
        self._buffers: dict[str, Tensor] = {}
        self._staged: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Forget what was staged, before the next state; the memory stays."""
        self._staged = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Start to copy a tensor."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
            if self._keep:
                self._buffers[name] = buffer
        self._staged[name] = buffer.copy_(tensor, non_blocking=self._pinned)

    def finish(self) -> Callable[[], dict[str, Tensor]]:
        """Return what waits for the copies, on whatever thread it is called, and gives them."""
        staged, self._staged = self._staged, {}
        if not self._pinned:
            return lambda: staged
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # so in some versions of torch
        copied.record()

        def arrived() -> dict[str, Tensor]:
            copied.synchronize()
            return staged

        return arrived
