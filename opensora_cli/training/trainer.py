"""The training loop, the same for every objective."""

import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opensora_cli.data.loader import Batch, Loader
from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.distributed.watchdog import Watchdog
from opensora_cli.training.checkpoint import Checkpoints, Progress, TrainState
from opensora_cli.training.draws import Draws
from opensora_cli.training.ema import Ema
from opensora_cli.training.interrupt import STOP_SIGNALS, Interrupt
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.objective import Objective
from opensora_cli.training.optim import Optimizer
from schemas.errors import OsoraError
from schemas.recipes import RunRecipe

_FEW_CLIPS = 50  # a share of bad clips means little before this many were read


@dataclass(frozen=True)
class MicroBatch:
    """A batch and where in the data it ends."""

    batch: Batch
    epoch: int
    end: int


class Trainer:
    """Reads batches, asks the objective for losses, updates the weights, records and saves."""

    def __init__(
        self,
        recipe: RunRecipe,
        objective: Objective,
        loader: Loader,
        checkpoints: Checkpoints,
        metrics: Metrics,
        process: Process,
        layout: Layout | None = None,
    ) -> None:
        self.recipe = recipe
        self.objective = objective
        self.loader = loader
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.process = process
        self.layout = layout or Layout()
        self.state = TrainState(
            module=objective.module,
            optimizer=Optimizer(objective.module, recipe.optim, recipe.max_steps, self.layout),
            ema=Ema(objective.module, recipe.optim.ema_decay) if recipe.optim.ema_decay is not None else None,
        )
        self.progress = Progress()
        self._saved_update = 0
        self._clips_read = 0
        self._clips_bad = 0

    def fit(self) -> int:
        """Train to the end, or until a signal asks to stop; return the exit code (0, 130 or 143)."""
        self._restore()
        self.metrics.open(self.progress.update)
        watchdog = Watchdog(self.recipe.parallel.hang_seconds, self.metrics.log)
        with self.metrics, Interrupt() as interrupt, watchdog:
            try:
                self._train(interrupt, watchdog)
            finally:
                self.checkpoints.wait()
            if interrupt.signal is not None:
                self.metrics.note(f"stopped by {interrupt.signal.name} after update {self.progress.update}; saved")
        return interrupt.exit_code

    def _train(self, interrupt: Interrupt, watchdog: Watchdog) -> None:
        every = self.recipe.checkpoint.every
        started = time.perf_counter()
        for micro_batches in self._updates():
            self._update(micro_batches, started)
            watchdog.progress()
            if self.progress.update % every == 0:
                self._save()
            if self._should_stop(interrupt):
                break
            started = time.perf_counter()
        if self.progress.update > self._saved_update:
            self._save()

    def _restore(self) -> None:
        self.checkpoints.clear_leftovers()
        latest = self.checkpoints.latest()
        # Files may reach the other processes late: the main one says what there is.
        if name := self.process.from_main(latest.name if latest else None):
            self.progress = self.checkpoints.load(self.checkpoints.folder / name, self.state)
            self._saved_update = self.progress.update

    def _should_stop(self, interrupt: Interrupt) -> bool:
        """Whether any process was asked to stop; all of them leave after the same update, with the same exit code."""
        counts = self.process.totals([interrupt.signal == number for number in STOP_SIGNALS])
        asked = [number for number, count in zip(STOP_SIGNALS, counts, strict=True) if count]
        interrupt.signal = interrupt.signal or (asked[0] if asked else None)
        return bool(asked)

    def _save(self) -> None:
        self.checkpoints.save(self.progress, self.state)
        self._saved_update = self.progress.update

    def _updates(self) -> Iterator[list[MicroBatch]]:
        """Group micro-batches into updates, until max_steps or the last epoch; a last incomplete group is left out."""
        group: list[MicroBatch] = []
        done = self.progress.update
        last = self.recipe.max_steps if self.recipe.max_steps is not None else math.inf
        batches = self._batches()
        while done < last and (micro_batch := next(batches, None)) is not None:
            group.append(micro_batch)
            if len(group) == self.recipe.optim.accumulation_steps:
                yield group
                group, done = [], done + 1

    def _batches(self) -> Iterator[MicroBatch]:
        first = self.progress
        for epoch in range(first.epoch, self.recipe.epochs):
            start = first.batch if epoch == first.epoch else 0
            for index, batch in enumerate(self.loader.epoch(epoch, start), start=start):
                yield MicroBatch(batch, epoch, index + 1)

    def _update(self, micro_batches: list[MicroBatch], started: float) -> None:
        """Do one optimizer update and record it. Raises OsoraError when the loss is not finite."""
        data_seconds = time.perf_counter() - started
        update = self.progress.update
        losses, extras = self._backward(micro_batches)
        norm = self.state.optimizer.clip()
        # The only wait for the device in an update: everything that is recorded comes over at once.
        loss, grad_norm, *values = self.process.mean(torch.stack([losses, norm, *extras.values()])).tolist()
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            self.checkpoints.wait()
            rows = [row for m in micro_batches for row in m.batch.rows]
            raise OsoraError(
                f"update {update + 1}: the loss is {loss} and the gradient norm {grad_norm} (rows {rows}); the weights were "
                f"left alone. Resume from {self.checkpoints.latest() or 'the start'} with a lower optim.lr or optim.grad_clip."
            )
        lr = self.state.optimizer.step(update)
        if self.state.ema is not None:
            self.state.ema.update(self.state.module)
        last = micro_batches[-1]
        self.progress = replace(self.progress, update=update + 1, epoch=last.epoch, batch=last.end)
        seconds = time.perf_counter() - started
        samples = sum(len(m.batch.rows) for m in micro_batches) * self.process.data_parallel.size
        self.metrics.write(
            {
                "step": update + 1,
                "epoch": last.epoch,
                "loss": loss,
                "lr": lr,
                "grad_norm": grad_norm,
                "step_seconds": seconds,
                "data_seconds": data_seconds,
                "samples": samples,
                "samples_per_second": samples / seconds,
                "memory_gib": peak_memory_gib(self.process.device),
                **dict(zip(extras, values, strict=True)),
            }
        )
        self._count_bad(micro_batches)

    def _backward(self, micro_batches: list[MicroBatch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Accumulate gradients of the mean loss; return that mean and the mean of every further metric."""
        device, dtype = self.process.device, DTYPES[self.recipe.dtype]
        share = 1 / len(micro_batches)
        total = torch.zeros((), device=device)
        extras: dict[str, Tensor] = {}
        for number, micro_batch in enumerate(micro_batches):
            draws = Draws(self.recipe.seed, self.progress.update, number, self.process.data_parallel.rank)
            batch = micro_batch.batch.to(device)
            self.layout.begin_micro_batch(number + 1 == len(micro_batches))
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss, metrics = self.objective.loss(batch, draws)
            torch.autograd.backward(loss * share)
            total += loss.detach().float() * share
            for name, value in metrics.items():
                extras[name] = extras.get(name, torch.zeros((), device=device)) + value.detach().float() * share
        return total, extras

    def _count_bad(self, micro_batches: list[MicroBatch]) -> None:
        """Record clips that could not be read, and stop when they are too many."""
        bad = [entry for m in micro_batches for entry in m.batch.bad]
        good = sum(len(m.batch.rows) for m in micro_batches)
        good_anywhere, bad_anywhere = self.process.totals([good, len(bad)])
        self._clips_read += good_anywhere + bad_anywhere
        self._clips_bad += bad_anywhere
        if not bad_anywhere:
            return
        self.metrics.bad(self.progress.update, bad)
        for row, path, reason in bad:
            self.metrics.note(f"row {row} was skipped: {path}: {reason}")
        limit = self.recipe.dataset.max_bad_share
        if self._clips_bad > limit * max(self._clips_read, _FEW_CLIPS):
            self._save()
            raise OsoraError(
                f"{self._clips_bad} of {self._clips_read} clips could not be read, more than dataset.max_bad_share = {limit}. "
                "bad_samples.csv in the run folder names them; run `osora meta` on the table to leave them out."
            )


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far, GiB: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
