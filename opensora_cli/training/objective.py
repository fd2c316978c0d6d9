"""What the trainer needs to know of the thing that is trained."""

from typing import Protocol

from torch import Tensor, nn

from opensora_cli.data.loader import Batch
from opensora_cli.training.draws import Draws


class Objective(Protocol):
    """Owns the modules; the trainer owns everything else."""

    module: nn.Module
    """The module whose parameters are trained and exported."""

    def loss(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and further scalars to record, for a batch on the objective's device."""
        ...
