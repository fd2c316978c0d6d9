"""The cost of one shape, as a function of the batch size: what every kind of recipe has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from opensora_cli.planning.shapes import ClipShape


@dataclass(frozen=True)
class Estimate:
    """A batch of one shape on one process, bytes and FLOPs."""

    tokens: int
    """Tokens of a clip, text included; latent pixels where nothing is cut into tokens."""
    forward_flops: int
    """One clip, forward through what the recipe trains or runs."""
    flops: int
    """One clip, all passes: with the backward pass, recomputation and frozen models."""
    flops_without_recomputing: int
    activations: int
    """What is kept for the backward pass."""
    activations_without_recomputing: int
    peak: int
    """The largest moment beside `Estimator.states`."""
    moment: str
    gradients_at_peak: int


class Estimator(Protocol):
    """Knows a recipe's models; estimates batches of its shapes."""

    @property
    def states(self) -> Mapping[str, int]:
        """What lies still through a whole job, bytes by name."""
        ...

    @property
    def gradients(self) -> int:
        """Bytes of all gradients of this process; part of `Estimate.peak`, as far as they are there at that moment."""
        ...

    def estimate(self, shape: ClipShape, batch: int) -> Estimate:
        """Return the cost of a batch of clips of a shape."""
        ...
