"""AdamW in host memory: the device keeps weights and gradients, the host a second copy of the weights and the moments.

Parameters are updated in groups. On CUDA the gradients of all groups start their way to pinned memory at once, on a stream
of their own; while the host updates a group, the gradients of the next arrive and the weights of the one before go back.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from opensora_cli.training.adamw import fused_adamw, moments_of
from opensora_cli.training.portions import portions
from schemas.optim import OptimConfig

GROUP = 2**26
"""Numbers of a group: 256 MiB of gradients. A power of two, which is what a pinned allocation is rounded up to."""


class HostGroup:
    """Some parameters with their copies on the host."""

    def __init__(self, names: Sequence[str], params: Sequence[nn.Parameter], config: OptimConfig) -> None:
        self.names, self.params = names, params
        pinned = params[0].is_cuda
        numbers = sum(p.numel() for p in params)
        weights, gradients = (torch.empty(numbers, pin_memory=pinned) for _ in range(2))
        self.weights = [nn.Parameter(part) for part in _parts(weights, params)]
        self.gradients = _parts(gradients, params)
        self.adamw = fused_adamw(self.weights, config)
        self._versions: list[int | None] = [None] * len(params)

    @torch.no_grad()
    def receive(self) -> None:
        """Begin to copy the gradients to the host, and weights that something else has changed: a checkpoint, say."""
        for index, p in enumerate(self.params):
            weight, gradient = self.weights[index], self.gradients[index]
            weight.grad = None if p.grad is None else gradient.copy_(p.grad, non_blocking=True)
            if self._versions[index] != p._version:
                weight.copy_(p, non_blocking=True)

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """Apply the gradients that have arrived, and begin to copy the weights back."""
        self.adamw.param_groups[0]["lr"] = lr
        self.adamw.step()
        for index, p in enumerate(self.params):
            if self.weights[index].grad is not None:
                p.copy_(self.weights[index], non_blocking=True)
            p.grad = None
            self._versions[index] = p._version


class HostAdamW:
    """AdamW of all parameters of a module, on the host."""

    def __init__(self, params: Mapping[str, nn.Parameter], config: OptimConfig) -> None:
        sizes = {name: p.numel() for name, p in params.items()}
        self.groups = [HostGroup(names, [params[name] for name in names], config) for names in portions(sizes, GROUP)]
        on_gpu = any(p.is_cuda for p in params.values())
        self._stream = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]  # so in some versions

    def step(self, lr: float) -> None:
        """Apply the gradients and forget them."""
        if self._stream is None:
            for group in self.groups:
                group.receive()
                group.update(lr)
            return
        computing = torch.cuda.current_stream()
        self._stream.wait_stream(computing)
        arrived = [self._receive(group, self._stream) for group in self.groups]
        for group, event in zip(self.groups, arrived, strict=True):
            event.synchronize()
            with torch.cuda.stream(self._stream):
                group.update(lr)
        computing.wait_stream(self._stream)

    def state(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield parameter name, moment and its tensor."""
        for group in self.groups:
            for name, weight in zip(group.names, group.weights, strict=True):
                for moment, tensor in moments_of(group.adamw, weight).items():
                    yield name, moment, tensor

    def _receive(self, group: HostGroup, stream: torch.cuda.Stream) -> torch.cuda.Event:
        with torch.cuda.stream(stream):
            group.receive()
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # so in some versions of torch
            event.record()
        return event


def _parts(flat: Tensor, params: Sequence[nn.Parameter]) -> list[Tensor]:
    split = torch.split(flat, [p.numel() for p in params])
    return [part.view(p.shape) for part, p in zip(split, params, strict=True)]
