"""Updating every weight as soon as its gradient is complete, so that all gradients are never there together."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from opensora_cli.training.adamw import Updater


class Released:
    """An updater for each parameter, which the backward pass itself calls."""

    def __init__(
        self, params: Mapping[str, nn.Parameter], make: Callable[[Mapping[str, nn.Parameter]], Updater]
    ) -> None:
        self._updaters = {name: make({name: p}) for name, p in params.items()}
        self._norms: list[Tensor] = []
        self._lr: float | None = None
        self._before_change: Callable[[], None] | None = None
        for name, p in params.items():
            p.register_post_accumulate_grad_hook(partial(self._release, name))  # type: ignore[no-untyped-call]

    def begin(self, lr: float, before_change: Callable[[], None] | None = None) -> None:
        """Let the coming backward pass update at that rate, and call `before_change` before each update on its way."""
        self._lr = lr
        self._before_change = before_change

    @property
    def any(self) -> bool:
        """Whether a gradient has come since the last `step`."""
        return bool(self._norms)

    def norm(self) -> Tensor:
        """Return the norm of all gradients that have come."""
        total: Tensor = torch.linalg.vector_norm(torch.stack(self._norms))
        return total

    def step(self, lr: float) -> None:
        """End the update, which has been done on the way."""
        self._norms.clear()
        self._lr = None

    def state(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield parameter name, moment and its tensor."""
        for updater in self._updaters.values():
            yield from updater.state()

    def _release(self, name: str, p: Tensor) -> None:
        assert self._lr is not None, "a backward pass outside of an update"
        assert p.grad is not None
        self._norms.append(torch.linalg.vector_norm(p.grad))
        if self._before_change is not None:
            self._before_change()
        self._updaters[name].step(self._lr)
