"""Where metrics are drawn: TensorBoard's files, and Weights & Biases by choice."""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from opensora_cli.training.run_folder import RunFolder
from schemas.errors import OsoraError


class Board(Protocol):
    """Draws scalars and pictures over updates."""

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Draw what has a finite value."""
        ...

    def picture(self, name: str, picture_HWC: NDArray[np.uint8], step: int) -> None:
        """Show a picture."""
        ...

    def close(self) -> None:
        """Write what is waiting."""
        ...


class TensorBoard:
    """Event files in a folder; events after `step`, of an interrupted run, are hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import: only where it is wanted

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Draw what has a finite value."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, picture_HWC: NDArray[np.uint8], step: int) -> None:
        """Show a picture."""
        self._writer.add_image(name, picture_HWC, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()


class WeightsAndBiases:
    """A run in a project of Weights & Biases, called as the run folder is; a resumed run goes on in the same one.

    WANDB_MODE=offline keeps it on this machine, in the run folder.
    """

    def __init__(self, project: str, folder: RunFolder) -> None:
        self._wandb = wandb_module()
        config = tomllib.loads(folder.lock.read_text(encoding="utf-8")) if folder.lock.exists() else {}
        name = folder.path.name
        try:
            self._run = self._wandb.init(
                project=project, name=name, id=name, resume="allow", dir=str(folder.path), config=config
            )
        except self._wandb.Error as error:
            raise OsoraError(
                f"logging.wandb_project = {project!r}: {error}. Log in, set WANDB_MODE=offline, or unset the key."
            ) from error
        # A resumed run repeats updates; by a metric of its own the axis may go back, by W&B's counter it may not.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Draw what has a finite value."""
        finite = {f"{group}/{name}": value for name, value in values.items() if math.isfinite(value)}
        self._run.log({"step": step, **finite})

    def picture(self, name: str, picture_HWC: NDArray[np.uint8], step: int) -> None:
        """Show a picture."""
        self._run.log({"step": step, name: self._wandb.Image(picture_HWC)})

    def close(self) -> None:
        """Write what is waiting."""
        self._run.finish()


def wandb_module() -> Any:
    """Import wandb. Raises OsoraError that says how to install it."""
    try:
        import wandb
    except ImportError as error:
        raise OsoraError(
            "logging.wandb_project is set, and wandb is not installed: pip install 'osora[wandb]', or unset the key."
        ) from error
    return wandb
