"""A denoiser's loss on clips that it is not trained on, at fixed times and with fixed noise.

The training loss jumps from update to update with the times and the noise that are drawn; this one only moves when the
model does, so a hundredth of it can be seen.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.training.checkpoint import TrainState
from opensora_cli.training.denoise_objective import DenoiserObjective, Encoded
from opensora_cli.training.draws import Draws
from opensora_cli.training.held_out import held_out_clips
from opensora_cli.training.looks import at_rest
from opensora_cli.training.metrics import Metrics

_NO_UPDATE = -1  # the draws belong to the clip alone; updates of training count from 0


class ValidationLoss:
    """This process's held-out clips by number, encoded and waiting in host memory, and the denoiser they are put to."""

    def __init__(self, objective: DenoiserObjective, clips: Mapping[int, Encoded], process: Process) -> None:
        self.objective = objective
        self.clips = clips
        self.process = process
        self.config = objective.recipe.validation
        self.every = self.config.every

    def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
        """Record the mean loss, and that of every part of the times."""
        rank, size = self.process.data_parallel
        sums_K = torch.zeros(1 + self.config.time_bins, dtype=torch.float64)
        with at_rest(state, layout, ema=self.config.ema):
            for number, encoded in self.clips.items():
                losses_K = self._losses(number, encoded.to(self.process.device))
                if number % size == rank:  # clips that fill up a share only keep the others company
                    sums_K += torch.cat([torch.ones(1), losses_K]).double()
        count, *sums = self.process.mean(sums_K).tolist()
        losses = [value / count for value in sums]
        bins = len(losses)
        parts = {f"loss_t{i / bins:.2f}-{(i + 1) / bins:.2f}": value for i, value in enumerate(losses)}
        metrics.validation(update, {"loss": sum(losses) / bins, **parts})

    def _losses(self, number: int, encoded: Encoded) -> Tensor:
        """Return a clip's loss in the middle of every part of the times, on the CPU."""
        objective, device, bins = self.objective, self.process.device, self.config.time_bins
        dtype = DTYPES[objective.recipe.dtype]
        draws = Draws(objective.recipe.seed, _NO_UPDATE, number, 0)
        losses = []
        for part in range(bins):
            noised = objective.noised(encoded, objective.fixed_times((part + 0.5) / bins, 1), draws)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                losses.append(objective.judge(objective.module(**noised.inputs), noised.truth))
        return torch.stack(losses).cpu()


def validation_loss(objective: DenoiserObjective, process: Process) -> ValidationLoss | None:
    """Read and encode this process's held-out clips; None where the recipe names none.

    Raises OsoraError when the table cannot be read or none of its clips fits a bucket.
    """
    recipe = objective.recipe
    if recipe.validation.data_path is None:
        return None
    share = held_out_clips(recipe, *process.data_parallel)
    with torch.no_grad(), objective.with_autoencoder(), objective.with_text_encoders():
        clips = {
            number: objective.encode(
                batch.to(process.device), Draws(recipe.seed, _NO_UPDATE, number, 0), drop_captions=False
            ).to(torch.device("cpu"))
            for number, batch in share
        }
    return ValidationLoss(objective, clips, process)
