"""A training update of osora's trainer against a bare PyTorch loop with the same model and the same batch.

Both do one update in turn, so that a noisy machine slows both. Prints the median of the ratios trainer / bare; the
trainer's side holds everything it does between two batches: draws, autocast, clipping, schedule, metrics.jsonl,
TensorBoard, log, display. Exit code 1 where it is above the bound.

    python benchmarks/train_step.py [--updates 40] [--device cpu|cuda] [--size tiny|small]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.data.loader import Batch
from opensora_cli.data.position import History
from opensora_cli.distributed.process import Process
from opensora_cli.progress import TrainingProgress
from opensora_cli.training.checkpoint import Checkpoints
from opensora_cli.training.draws import Draws
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.token_objective import TokenObjective
from opensora_cli.training.trainer import Trainer
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve

WARM_UP = 4
BOUND = 1.03
SIZES = {"tiny": (96, 2, 4), "small": (384, 4, 8)}


def recipe_for(folder: Path, size: str, updates: int, device: str) -> TrainRecipe:
    hidden, depth, single = SIZES[size]
    head = hidden // 4
    make_tiny_text_encoders(folder, ["a", "red", "circle", "moves", "left"], seed=0)
    recipe = resolve(
        "tiny/train",
        sets=[
            f'text.t5.from_pretrained="{folder}/t5"',
            f'text.clip.from_pretrained="{folder}/clip"',
            f"model.hidden_size={hidden}",
            f"model.depth={depth}",
            f"model.depth_single_blocks={single}",
            f"model.axes_dim=[{head // 3}, {head // 3}, {head // 3}]",
            f"max_steps={updates}",
            f'device="{device}"',
            f'dtype="{"bf16" if device == "cuda" else "fp32"}"',
            f"checkpoint.every={updates}",
        ],
        unsets=["ae.from_pretrained", "optim.ema_decay"],
    ).recipe
    assert isinstance(recipe, TrainRecipe)
    return recipe


class Bare:
    """The loop one would write by hand."""

    def __init__(self, recipe: TrainRecipe, device: torch.device) -> None:
        self.objective = TokenObjective(recipe, device)
        self.device = device
        self.adamw = torch.optim.AdamW(
            self.objective.module.parameters(), lr=recipe.optim.lr, weight_decay=0.0, fused=True
        )
        self.autocast = recipe.dtype == "bf16"
        self.step = 0

    def update(self, batch: Batch) -> None:
        batch = batch.to(self.device)
        with torch.no_grad():
            noised = self.objective.prepare(batch, Draws(0, self.step, 0, 0))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            loss = self.objective.judge(self.objective.module(**noised.inputs), noised.truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.objective.module.parameters(), 1.0)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        loss.item()
        self.step += 1


class TurnTaking:
    """A loader that hands out one batch again and again, times the trainer's use of it, and lets the bare loop go in between."""

    fingerprint = "benchmark"

    def __init__(self, batch: Batch, bare: Bare) -> None:
        self.batch, self.bare = batch, bare
        self.trainer_seconds: list[float] = []
        self.bare_seconds: list[float] = []

    def epoch(self, epoch: int, start: int = 0, before: History = ()) -> Iterator[Batch]:
        while True:
            before = time.perf_counter()
            self.bare.update(self.batch)
            middle = time.perf_counter()
            yield self.batch
            self.bare_seconds.append(middle - before)
            self.trainer_seconds.append(time.perf_counter() - middle)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--updates", type=int, default=40)
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments.add_argument("--size", default="tiny", choices=tuple(SIZES))
    options = arguments.parse_args()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = recipe_for(folder, options.size, options.updates + WARM_UP, options.device)
        video = torch.rand(2, 3, 17, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        batch = Batch(
            video=video, text=["a red circle moves left"] * 2, rows=[0, 1], bucket=None, fps=[8.0, 8.0], bad=[]
        )
        loader = TurnTaking(batch, Bare(recipe, device))
        run = RunFolder(folder / "run")
        run.checkpoints.mkdir(parents=True)
        with TrainingProgress("train", recipe.max_steps, console=Console(quiet=True)) as display:
            metrics = Metrics(run, display, rank=0, log_every=10, tensorboard=True)
            checkpoints = Checkpoints(run.checkpoints, recipe.checkpoint, torch.float32)
            process = Process(0, 1, device)
            Trainer(recipe, TokenObjective(recipe, device), loader, checkpoints, metrics, process).fit()
    pairs = list(zip(loader.trainer_seconds, loader.bare_seconds, strict=True))[WARM_UP:]
    ratios = [trainer / bare for trainer, bare in pairs]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(
        f"train_step {options.size} on {name}: trainer / bare = {statistics.median(ratios):.3f} "
        f"(median of {len(ratios)} updates in turn; bound {BOUND}); "
        f"bare {1e3 * statistics.median(b for _, b in pairs):.1f} ms"
    )
    return int(statistics.median(ratios) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
