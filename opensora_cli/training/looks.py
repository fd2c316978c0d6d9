"""Looks at a run while it trains: what they have in common."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from opensora_cli.distributed.layout import Layout
from opensora_cli.training.checkpoint import TrainState
from opensora_cli.training.ema import Ema
from opensora_cli.training.metrics import Metrics


class Look(Protocol):
    """Something that is asked of the model in training at an interval. All processes take part.

    It draws from generators of its own, so that the run goes on as if nobody had looked.
    """

    every: int
    """Updates between looks."""

    def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
        """Look, after an update, and record what is seen."""
        ...


@contextmanager
def at_rest(state: TrainState, layout: Layout, *, ema: bool) -> Iterator[None]:
    """Have the trained module in evaluation mode and without gradients inside, with averaged weights if `ema`."""
    average = state.ema if ema else None
    state.module.eval()
    try:
        if average is not None:
            _swap(state.module, average)
        try:
            with torch.no_grad():
                yield
        finally:
            layout.reshard()
            if average is not None:
                _swap(state.module, average)
    finally:
        state.module.train()


@torch.no_grad()
def _swap(module: nn.Module, ema: Ema) -> None:
    """Exchange weights and averages, tensor by tensor: a second copy of all would not fit beside the optimizer."""
    for name, p in module.named_parameters():
        average = ema.averages.get(name)
        if p.requires_grad and average is not None:
            assert p.dtype == average.dtype, f"{name}: an average that has to be rounded would not come back whole"
            weight = p.detach()
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)


def shared_out(count: int, rank: int, size: int) -> Sequence[int]:
    """Return the numbers below `count` that are one rank's of `size`; every rank has equally many, so some come twice.

    Models that are spread over processes need all of these in every forward pass.
    """
    rounds = -(-count // size)
    return [min(rank + size * turn, count - 1) for turn in range(rounds)]
