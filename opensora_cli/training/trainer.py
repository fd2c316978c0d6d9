"""The training loop, the same for every objective."""

import math
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from opensora_cli.data.loader import Batch, Loader
from opensora_cli.data.position import Position
from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import Process
from opensora_cli.distributed.watchdog import Watchdog
from opensora_cli.training.backward import ADVERSARY, Backward
from opensora_cli.training.boosted import make_optimizer
from opensora_cli.training.checkpoint import Checkpoints, Progress, Trained, TrainState
from opensora_cli.training.ema import Ema
from opensora_cli.training.faulty_batches import keep_faulty
from opensora_cli.training.interrupt import STOP_SIGNALS, Interrupt
from opensora_cli.training.looks import Look
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.objective import Objective
from opensora_cli.training.profiling import Profiler
from opensora_cli.training.speed import Speed
from opensora_models.compiled import compile_seconds
from schemas.errors import OsoraError
from schemas.recipes import RunRecipe, TrainRecipe

_FEW_CLIPS = 50  # a share of bad clips means little before this many were read


@dataclass(frozen=True)
class MicroBatch:
    """A batch and where in the data it ends."""

    batch: Batch
    end: Position


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
        looks: Sequence[Look] = (),
    ) -> None:
        self.recipe = recipe
        self.objective = objective
        self.loader = loader
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.process = process
        self.looks = looks
        self.layout = layout or Layout()
        self.state = TrainState(
            module=objective.module,
            optimizer=make_optimizer(objective.module, recipe.optim, recipe.max_steps, self.layout, recipe.memory),
            ema=self._average(),
        )
        if (adversary := objective.adversary) is not None:
            optimizer = make_optimizer(adversary.module, adversary.optim, recipe.max_steps, self.layout)
            self.state.adversary = Trained(adversary.module, optimizer)
        objective.module = self.layout.forward_module(objective.module)
        self.backward = Backward(recipe, objective, process, self.layout, metrics.note)
        self.speed = Speed(recipe, process, objective.encoding)
        steps = recipe.logging.profile_steps if process.is_main else ()
        self.profiler = Profiler(steps, metrics.folder.profiles, process.device)
        self.progress = Progress()
        self._saved_update = 0
        self._clips_read = 0
        self._clips_bad = 0
        self._compiled_seconds = 0.0

    def _average(self) -> Ema | None:
        """Return the average of the weights that the recipe asks for; of adapters alone where they are what is trained."""
        decay, lora = self.recipe.optim.ema_decay, isinstance(self.recipe, TrainRecipe) and self.recipe.lora is not None
        return Ema(self.objective.module, decay, trained_only=lora) if decay is not None else None

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
            with self.profiler.around(self.progress.update + 1):
                self._update(micro_batches, started)
            watchdog.progress()
            for look in self.looks:
                if self.progress.update % look.every == 0:
                    self.layout.settle()
                    self.checkpoints.await_copy()  # it may swap averaged weights in
                    look.run(self.progress.update, self.state, self.layout, self.metrics)
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
        position = self.progress.position.on(self.process.data_parallel.size)
        if position.before != self.progress.position.before:
            done = sum(ranks * steps for ranks, steps in position.before)
            self.metrics.note(
                f"epoch {position.epoch} goes on with {position.dp_size} data-parallel ranks: they share what is left of it, "
                f"{done} batches are done"
            )
        while position.epoch < self.recipe.epochs:
            batches = self.loader.epoch(position.epoch, position.batch, position.before)
            for number, batch in enumerate(batches, start=position.batch + 1):
                yield MicroBatch(batch, position.at(number))
            position = position.next_epoch()

    def _update(self, micro_batches: list[MicroBatch], started: float) -> None:
        """Do one optimizer update, or leave it out when a loss or gradient is not finite, and record it."""
        data_seconds = time.perf_counter() - started
        batches = [m.batch for m in micro_batches]
        self.state.optimizer.begin(self.progress.update, self.checkpoints.await_copy)
        recorded = self.backward.run(self.progress.update, batches)
        trained = {name: part for name, part in self._parts().items() if part.optimizer.has_gradients()}
        norms = {f"{name}grad_norm": part.optimizer.clip() for name, part in trained.items()}
        # The only wait for the device in an update: everything that is recorded comes over at once.
        recorded |= norms
        own = torch.stack(list(recorded.values()))
        values = dict(zip(recorded, self.process.mean(own).tolist(), strict=True))
        judged = {name: values[name] for name in recorded if name in norms or name.endswith("loss")}
        update = self.progress.update
        if all(map(math.isfinite, judged.values())):
            self.checkpoints.await_copy()  # before weights, moments, adversary or averages change
            values |= {f"{name}lr": part.optimizer.step(update) for name, part in trained.items()}
            if self.state.ema is not None and "" in trained:
                self.layout.settle()
                self.state.ema.update(self.state.module)
            self.progress = replace(self.progress, skipped_in_a_row=0)
        else:
            values |= self._leave_out(judged, micro_batches, bool(own.isfinite().all()))
        self.progress = replace(self.progress, update=update + 1, position=micro_batches[-1].end)
        self._record(values, micro_batches, time.perf_counter() - started, data_seconds)
        self._count_bad(micro_batches)

    def _record(
        self, values: dict[str, float], micro_batches: list[MicroBatch], seconds: float, data_seconds: float
    ) -> None:
        """Write the metrics of the update that `progress` has come to; the module's own ones are there in every update."""
        batches = [m.batch for m in micro_batches]
        self.metrics.write(
            {
                "step": self.progress.update,
                "epoch": self.progress.position.epoch,
                "loss": values["loss"],
                "lr": 0.0,
                "grad_norm": 0.0,
                **values,
                "step_seconds": seconds,
                "data_seconds": data_seconds,
                **self._compiling(),
                **self.backward.parts(batches),
                **self.speed.metrics(batches, seconds, data_seconds),
                "memory_gib": peak_memory_gib(self.process.device),
            }
        )

    def _compiling(self) -> dict[str, float]:
        """Return how much of the update was spent on compiling, which is over after the first few."""
        if not self.recipe.memory.compile:
            return {}
        before, self._compiled_seconds = self._compiled_seconds, compile_seconds()
        return {"compile_seconds": self._compiled_seconds - before}

    def _parts(self) -> dict[str, Trained]:
        """Return what has an optimizer, by the prefix of its metrics."""
        adversary = self.state.adversary
        return {"": self.state} | ({ADVERSARY: adversary} if adversary is not None else {})

    def _leave_out(
        self, values: dict[str, float], micro_batches: list[MicroBatch], own_is_finite: bool
    ) -> dict[str, float]:
        """Keep the batches, forget the gradients and return what is recorded of it.

        The values are means over all processes, so all of them come here after the same update. Raises OsoraError when the
        recipe allows no more of these.
        """
        optim, done, update = self.recipe.optim, self.progress, self.progress.update
        folder = self.metrics.folder.faulty(update + 1)
        self._keep_faulty(folder, values, micro_batches, own_is_finite)
        named = ", ".join(f"{name} = {value}" for name, value in values.items())
        rows = [row for m in micro_batches for row in m.batch.rows]
        what = f"update {update + 1}: {named} (rows {rows}, kept in {folder})"
        if self.recipe.memory.release_gradients and "grad_norm" in values:
            self.checkpoints.wait()
            raise OsoraError(
                f"{what}; memory.release_gradients had applied its gradients before this was known. Resume from "
                f"{self.checkpoints.latest() or 'the start'} with a lower optim.lr."
            )
        if done.skipped >= optim.max_skips or done.skipped_in_a_row >= optim.max_skips_in_a_row:
            self.checkpoints.wait()
            raise OsoraError(
                f"{what}; the weights were left alone. optim.max_skips = {optim.max_skips} and max_skips_in_a_row = "
                f"{optim.max_skips_in_a_row} allow no more of these: {done.skipped} were left out before, the last "
                f"{done.skipped_in_a_row} in a row. Resume from {self.checkpoints.latest() or 'the start'} with a lower "
                "optim.lr or optim.grad_clip."
            )
        for part in self._parts().values():
            self.layout.forget(part.module)
        self.progress = replace(done, skipped=done.skipped + 1, skipped_in_a_row=done.skipped_in_a_row + 1)
        self.metrics.note(f"{what} was left out, {self.progress.skipped} of at most {optim.max_skips}")
        return {"skipped": 1.0}

    def _keep_faulty(
        self, folder: Path, values: dict[str, float], micro_batches: list[MicroBatch], own_is_finite: bool
    ) -> None:
        """Write the batches of the processes whose own values are not finite; of all, where no loss shows whose it is."""
        (faulty,) = self.process.totals([not own_is_finite])
        first_of_its_batch = self.process.rank % self.process.together == 0
        if first_of_its_batch and not (faulty and own_is_finite):
            keep_faulty(
                folder,
                [m.batch for m in micro_batches],
                values,
                seed=self.recipe.seed,
                update=self.progress.update,
                rank=self.process.data_parallel.rank,
            )

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
