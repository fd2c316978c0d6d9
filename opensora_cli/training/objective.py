"""What the trainer needs to know of the thing that is trained."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from opensora_cli.data.loader import Batch
from opensora_cli.training.clock import DeviceClock
from opensora_cli.training.draws import Draws
from schemas.optim import OptimConfig


@dataclass(frozen=True)
class Loss:
    """A scalar that the module, or its adversary, is to minimise; one that needs no gradient is only recorded."""

    value: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Further scalars to record."""
    of_adversary: bool = False


@dataclass(frozen=True)
class Adversary:
    """A second module that is trained against the first, by an optimizer of its own."""

    module: nn.Module
    optim: OptimConfig


class Objective(Protocol):
    """Owns the modules; the trainer owns everything else."""

    module: nn.Module
    """The module whose parameters are trained and exported."""
    adversary: Adversary | None
    encoding: DeviceClock | None
    """Counts the time that frozen encoders take, where there are any."""

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the losses of a batch on the objective's device, the module's first.

        Each is asked for when the gradients of the one before are there, so that their graphs are never there together.
        """
        ...
