"""The backward passes of an update, in halves where a GPU's memory runs out."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from opensora_cli.data.dataset import Batch
from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.training.denoise_objective import DenoiserObjective
from opensora_cli.training.draws import Draws
from opensora_cli.training.objective import Loss, Objective
from schemas.errors import OsoraError
from schemas.recipes import RunRecipe

ADVERSARY = "adversary_"
"""Prefix of an adversary's metrics."""


class Backward:
    """Accumulates the gradients of an update's micro-batches."""

    def __init__(
        self, recipe: RunRecipe, objective: Objective, process: Process, layout: Layout, note: Callable[[str], None]
    ) -> None:
        """Check that the recipe can be done. Raises OsoraError for splitting on several processes."""
        self.recipe = recipe
        self.objective = objective
        self.process = process
        self.layout = layout
        self.note = note
        self._parts: dict[str, int] = {}  # bucket -> parts that its micro-batches are done in
        if recipe.memory.split_on_oom and process.world_size > 1:
            raise OsoraError(
                f"memory.split_on_oom = true on {process.world_size} processes: the others would wait for the one whose "
                "memory ran out. Unset it, and lower the batch sizes, or let `osora config plan --suggest` find some."
            )

    def run(self, update: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Accumulate gradients of the mean losses; return those means and the mean of every further metric.

        Where memory runs out, the gradients so far are of no use: all is done again, with that micro-batch in twice as
        many parts, which also those of its bucket are from then on. The draws are of whole micro-batches, so the loss and
        the gradients stay what they were, up to rounding.
        """
        while True:
            done: list[int] = []
            try:
                return self._attempt(update, batches, done)
            except torch.OutOfMemoryError as error:
                reason = str(error).partition("\n")[0]
                if not self.recipe.memory.split_on_oom:
                    raise
            # Behind the handler, whose error holds on to everything that was in memory.
            self._split(update, batches[len(done)], reason)

    def _attempt(self, update: int, batches: Sequence[Batch], done: list[int]) -> dict[str, Tensor]:
        """Do every micro-batch and count in `done` those that are."""
        device = self.process.device
        share = 1 / len(batches)
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            draws = Draws(self.recipe.seed, update, number, self.process.data_parallel.rank)
            self.layout.begin_micro_batch(number + 1 == len(batches))
            for loss in self._losses(batch.to(device), draws):
                if loss.value.requires_grad and self._may_go_back(loss.value):
                    self.layout.backward(loss.value * share)
                name = f"{ADVERSARY}loss" if loss.of_adversary else "loss"
                for key, value in {name: loss.value, **loss.metrics}.items():
                    means[key] = means.get(key, torch.zeros((), device=device)) + value.detach().float() * share
            done.append(number)
        return means

    def _may_go_back(self, loss: Tensor) -> bool:
        """Whether a loss may reach the weights: where the backward pass changes them, one that is not finite may not."""
        return not self.recipe.memory.release_gradients or bool(loss.isfinite())

    def _losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the losses, with autocast around what makes each of them and not around what the caller does with it."""
        device, dtype = self.process.device, DTYPES[self.recipe.dtype]
        parts = self._parts.get(str(batch.bucket), 1)
        if parts > 1:
            assert isinstance(self.objective, DenoiserObjective)
            losses = self.objective.losses_in_parts(batch, draws, parts)
        else:
            losses = self.objective.losses(batch, draws)
        while True:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = next(losses, None)
            if loss is None:
                return
            yield loss

    def _split(self, update: int, batch: Batch, reason: str) -> None:
        bucket, clips = str(batch.bucket), len(batch.rows)
        parts = 2 * self._parts.get(bucket, 1)
        if parts >= 2 * clips:
            raise OsoraError(
                f"update {update + 1}: memory runs out with a single clip of bucket {bucket} ({reason}). Recompute activations "
                "(memory.grad_checkpoint), or leave the bucket out."
            )
        self._parts[bucket] = min(parts, clips)
        self.note(
            f"update {update + 1}: memory ran out; bucket {bucket} is done in {self._parts[bucket]} parts ({reason})"
        )
        self.layout.forget(self.objective.module)
        if self.process.device.type == "cuda":
            torch.cuda.empty_cache()

    def parts(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Return what is recorded of an update: the most parts that one of its micro-batches was done in, if any was."""
        most = max(self._parts.get(str(batch.bucket), 1) for batch in batches) if self._parts else 1
        return {"parts": float(most)} if most > 1 else {}
