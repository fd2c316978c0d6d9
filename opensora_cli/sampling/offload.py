"""Models that wait in host memory: whole ones until they are at work, and a denoiser's blocks until their turn comes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from opensora_cli.sampling.host_memory import Pack

SLOTS = 2
"""Blocks on the device at a time: the one at work and the one on its way."""


class Waiting(Protocol):
    """A model whose weights are not on the device all the time."""

    def at_work(self) -> Any:
        """Return a context inside which the model can be used."""
        ...


class WholeModel:
    """A frozen model that waits in host memory, and is on the device, in one piece, while it is at work."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._pack = Pack(weights_of(module), pinned=device.type == "cuda")
        self._device = device

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Bring the weights to the device, and forget them there afterwards."""
        here_U = self._pack.host.to(self._device, non_blocking=True, copy=True)
        self._pack.point_to(here_U)
        try:
            yield
        finally:
            self._pack.rest()


class Lane:
    """The side stream on which blocks come to the device. On a CPU everything happens in order, and nothing waits."""

    def __init__(self, device: torch.device) -> None:
        self._copies: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def copy(self, target_U: Tensor, source_U: Tensor, after: "Mark") -> "Mark":
        """Copy once the work before `after` is done, beside whatever is computed; return the mark of its arrival."""
        if self._copies is None:
            target_U.copy_(source_U)
            return Mark(None)
        with torch.cuda.stream(self._copies):
            after.wait()
            target_U.copy_(source_U, non_blocking=True)
            return self.mark()

    def mark(self) -> "Mark":
        """Return a mark behind what the current stream was given so far."""
        return Mark(None if self._copies is None else torch.cuda.current_stream(self._copies.device).record_event())

    def join(self) -> None:
        """Let the current stream wait for all copies: only then may what they write to be given back."""
        if self._copies is not None:
            torch.cuda.current_stream(self._copies.device).wait_stream(self._copies)


class Mark:
    """A point in a stream's work."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def wait(self) -> None:
        """Let the current stream, and not the program, wait until the work before the mark is done."""
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)


class _Slot:
    """Memory on the device for one block, which it is given to in turn."""

    def __init__(self, nbytes: int, device: torch.device, free: Mark) -> None:
        self.bytes = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.block: int | None = None
        self.arrived = self.left = free


class BlockSwap:
    """A frozen denoiser of which `SLOTS` blocks at most are on the device: while one works, the next one comes.

    The order of the blocks is that of `blocks`, round and round. A block that runs out of turn is waited for.
    """

    def __init__(
        self, denoiser: nn.Module, blocks: Sequence[nn.Module], device: torch.device, lane: Lane | None = None
    ) -> None:
        pinned = device.type == "cuda"
        inside = {id(tensor) for block in blocks for tensor in weights_of(block)}
        self._rest = Pack([tensor for tensor in weights_of(denoiser) if id(tensor) not in inside], pinned=pinned)
        self._packs = [Pack(weights_of(block), pinned=pinned) for block in blocks]
        self._device, self._lane = device, lane or Lane(device)
        self._slots: list[_Slot] = []
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, number=number: self._come(number))
            block.register_forward_hook(lambda *_, number=number: self._leave(number))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Bring what is outside of the blocks to the device, and the first block; leave nothing there afterwards."""
        here_U = self._rest.host.to(self._device, non_blocking=True, copy=True)
        self._rest.point_to(here_U)
        largest, free = max(pack.nbytes for pack in self._packs), self._lane.mark()
        self._slots = [_Slot(largest, self._device, free) for _ in range(SLOTS)]
        self._fetch(0, self._slots[0])
        try:
            yield
        finally:
            self._lane.join()
            self._slots = []
            for pack in (self._rest, *self._packs):
                pack.rest()

    def _come(self, number: int) -> None:
        """Before a block: have it here, and send for the next one, which takes the place of the one before."""
        slot = self._slot_of(number) or self._fetch(number, self._slots[0])
        slot.arrived.wait()
        self._packs[number].point_to(slot.bytes)
        following = (number + 1) % len(self._packs)
        if self._slot_of(following) is None:
            self._fetch(following, next(other for other in self._slots if other is not slot))

    def _leave(self, number: int) -> None:
        """Behind a block: its slot is free as soon as the work so far is done."""
        slot = self._slot_of(number)
        assert slot is not None, "it came before its forward pass"
        slot.left = self._lane.mark()
        self._packs[number].rest()

    def _fetch(self, number: int, slot: _Slot) -> _Slot:
        pack = self._packs[number]
        slot.block = number
        slot.arrived = self._lane.copy(slot.bytes[: pack.nbytes], pack.host, slot.left)
        return slot

    def _slot_of(self, number: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.block == number), None)


def weights_of(module: nn.Module) -> list[Tensor]:
    """Return every parameter and buffer of a module."""
    return list(chain(module.parameters(), module.buffers()))
