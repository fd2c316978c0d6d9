"""What the loop does on a GPU beside updates: times without waiting, traces, samples that leave nothing, memory that runs out.

    python -m benchmarks.loop_gpu

Trains the small denoiser of `benchmarks.train_step` on one made batch for a few updates, then lets a larger batch meet a
limit that it does not fit. Prints a line for each figure and exits 1 where one does not hold.
"""

import gc
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.train_step import recipe_for
from opensora_cli.data.loader import Batch
from opensora_cli.data.position import History
from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import Process
from opensora_cli.planning.hardware import bf16_flops
from opensora_cli.progress import TrainingProgress
from opensora_cli.training.backward import Backward
from opensora_cli.training.checkpoint import Checkpoints, TrainState
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.samples import TrainingSamples, training_samples
from opensora_cli.training.token_objective import TokenObjective
from opensora_cli.training.trainer import Trainer
from schemas.recipes import TrainRecipe

UPDATES, PROFILED, SAMPLED_EVERY = 6, 3, 2
CLIPS, SIDE = 16, 128
ROOM = 0.6
"""Share of what the batch takes at its peak that it gets."""


def batch_of(clips: int, side: int) -> Batch:
    video = torch.rand(clips, 3, 17, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(video, ["a red circle moves left"] * clips, list(range(clips)), None, [8.0] * clips, [])


@dataclass
class OneBatch:
    """A loader that hands out one batch again and again."""

    batch: Batch
    fingerprint: str = "benchmark"

    def epoch(self, epoch: int, start: int = 0, before: History = ()) -> Iterator[Batch]:
        while True:
            yield self.batch


class Watched:
    """Samples in training, and the GPU's memory in use before and after each look."""

    def __init__(self, look: TrainingSamples) -> None:
        self.look = look
        self.every = look.every
        self.memory: list[tuple[int, int]] = []

    def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
        before = torch.cuda.memory_allocated()
        self.look.run(update, state, layout, metrics)
        self.memory.append((before, torch.cuda.memory_allocated()))


def train(recipe: TrainRecipe, folder: Path, process: Process) -> dict[str, bool]:
    objective = TokenObjective(recipe, process.device)
    samples = training_samples(objective, process)
    assert samples is not None
    look, run = Watched(samples), RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    with TrainingProgress("train", UPDATES, console=Console(quiet=True)) as display:
        metrics = Metrics(run, display, rank=0, log_every=1, tensorboard=False)
        checkpoints = Checkpoints(run.checkpoints, recipe.checkpoint, torch.float32)
        Trainer(recipe, objective, OneBatch(batch_of(2, 64)), checkpoints, metrics, process, looks=[look]).fit()
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    known = bf16_flops(torch.cuda.get_device_name()) is not None
    names = {path.name: path.stat().st_size for path in run.profiles.iterdir()}
    print(
        f"last update: { ({key: last.get(key) for key in ('tokens_per_second', 'mfu', 'encode_share', 'data_share')}) }"
    )
    print(f"traces: {names}")
    print(f"memory in use before and after each look at samples: {look.memory}")
    wanted = {f"step-{PROFILED:08d}{end}" for end in (".pt.trace.json", ".txt", ".memory.pickle")}
    return {
        "the encoders' share of the time is measured": 0 < last["encode_share"] < 1,
        "MFU is there where the GPU's peak is known": ("mfu" in last) == known and last.get("mfu", 0.5) < 1,
        "an update is traced, with its memory": names.keys() == wanted and min(names.values()) > 1000,
        "samples leave no memory behind": all(before == after for before, after in look.memory),
        "there is a picture for every look": len(list(run.samples.glob("*.png"))) == UPDATES // SAMPLED_EVERY,
    }


def gradients_of(recipe: TrainRecipe, process: Process, room: float | None) -> tuple[float, Tensor, int, list[str]]:
    """Return loss, gradient, most bytes in use above the weights and notes, with so much memory above the weights."""
    gc.collect()
    torch.cuda.empty_cache()
    objective, notes = TokenObjective(recipe, process.device), list[str]()
    batch = batch_of(CLIPS, SIDE)
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(process.device).total_memory
    torch.cuda.set_per_process_memory_fraction(1.0 if room is None else (torch.cuda.memory_reserved() + room) / total)
    try:
        means = Backward(recipe, objective, process, Layout(), notes.append).run(0, [batch])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    flat = torch.cat([p.grad.flatten() for p in objective.module.parameters() if p.grad is not None])
    return float(means["loss"]), flat.cpu(), torch.cuda.max_memory_allocated() - start, notes


def run_out(recipe: TrainRecipe, process: Process) -> dict[str, bool]:
    loss, gradient, peak, _ = gradients_of(recipe, process, None)
    split_loss, split_gradient, split_peak, notes = gradients_of(recipe, process, ROOM * peak)
    error = float((gradient - split_gradient).norm() / gradient.norm())
    print(f"{CLIPS} clips: peak {peak / 2**20:.0f} MiB, with {ROOM:.0%} of it {split_peak / 2**20:.0f} MiB; {notes}")
    print(f"loss {loss:.7f} whole, {split_loss:.7f} in parts; gradients differ by {error:.1e}")
    return {
        "memory ran out and the batch was done in parts": bool(notes),
        "in parts the loss is the same": abs(loss - split_loss) < 1e-5,
        "in parts the gradient is the same": error < 1e-4,
    }


def main() -> int:
    process = Process(0, 1, torch.device("cuda"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = recipe_for(folder, "small", UPDATES, "cuda")
        prompts = {"prompts": ("a red circle moves left", "a red circle"), "every": SAMPLED_EVERY, "num_frames": 17}
        samples = recipe.samples.model_copy(update=prompts | {"resolution": "64px", "num_steps": 4})
        logging = recipe.logging.model_copy(update={"profile_steps": (PROFILED,)})
        results = train(recipe.model_copy(update={"samples": samples, "logging": logging}), folder / "run", process)
        exact = recipe.model_copy(
            update={"dtype": "fp32", "memory": recipe.memory.model_copy(update={"split_on_oom": True})}
        )
        results |= run_out(exact, process)
    for what, holds in results.items():
        print(f"{'ok ' if holds else 'BAD'} {what}")
    return int(not all(results.values()))


if __name__ == "__main__":
    sys.exit(main())
