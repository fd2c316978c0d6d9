"""Looks at a run in training: held-out clips and samples, in one process and in two, and a run that does not notice."""

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from opensora_cli.training.job import run_training
from opensora_cli.training.samples import TrainingSamples
from schemas.resolve import resolve
from tests.cli.conftest import Osora

TINY = [
    "max_steps=4", "optim.warmup_steps=0", "model.depth=1", "model.depth_single_blocks=1", "dataset.num_workers=0",
    "condition.i2v_loop=0", "condition.i2v_tail=0", "checkpoint.every=4",
]  # fmt: skip
LOOKS = [
    "validation.data_path=demo/meta.csv", "validation.every=2", "validation.num_samples=3", "validation.time_bins=2",
    'samples.prompts=["a red circle", "a blue square", "a green star"]', "samples.every=2", "samples.resolution=64px",
    "samples.aspect_ratio='1:1'", "samples.num_frames=5", "samples.num_steps=2",
]  # fmt: skip
STANDING_STILL = ["optim.lr=1e-30"]  # so that the processes' weights are those of one, whatever clips they saw


def train(folder: Path, sets: list[str]) -> Path:
    resolved = resolve("tiny/train", sets=[*TINY, *sets, f"outputs={folder}"], unsets=["ae.from_pretrained"])
    assert run_training(resolved, resume=None, dry_run=False, console=Console(quiet=True)) == 0
    (run,) = folder.iterdir()
    return run


def read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count_what_samples_leave(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every look at samples adds how many tensors there are more after it than before it."""
    left: list[int] = []
    run = TrainingSamples.run

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    def counted(self: TrainingSamples, *arguments: Any) -> None:
        before = tensors()
        run(self, *arguments)
        left.append(tensors() - before)

    monkeypatch.setattr(TrainingSamples, "run", counted)
    return left


def test_a_run_does_not_notice_that_it_is_looked_at(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    plain = train(tmp_path / "plain", [])
    before = torch.get_rng_state()
    left_behind = count_what_samples_leave(monkeypatch)
    seen = train(tmp_path / "seen", [*LOOKS, "validation.ema=true", "samples.ema=true"])
    assert torch.equal(torch.get_rng_state(), before)
    facts = [[(r["loss"], r["grad_norm"]) for r in read(run / "metrics.jsonl")] for run in (plain, seen)]
    assert facts[0] == facts[1]
    state = "checkpoints/step-00000004/ema.safetensors"
    assert (plain / state).read_bytes() == (seen / state).read_bytes()
    assert left_behind == [0, 0]
    looks = read(seen / "validation.jsonl")
    assert [set(look) for look in looks] == [{"step", "loss", "loss_t0.00-0.50", "loss_t0.50-1.00"}] * 2
    assert looks[0]["loss"] == pytest.approx((looks[0]["loss_t0.00-0.50"] + looks[0]["loss_t0.50-1.00"]) / 2)
    assert looks[1]["loss"] < looks[0]["loss"]
    events = b"".join(path.read_bytes() for path in (seen / "tensorboard").iterdir())
    assert b"validation/loss_t0.00-0.50" in events
    assert b"samples" in events
    assert [path.name for path in sorted((seen / "samples").iterdir())] == ["step-00000002.png", "step-00000004.png"]


def test_two_processes_see_what_one_sees(
    prepared: Path, osora: Osora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [*TINY, *LOOKS, *STANDING_STILL, "max_steps=2", "parallel.plugin=fsdp", f"outputs={tmp_path / 'two'}"]
    options = [option for text in sets for option in ("--set", text)]
    done = osora("train", "tiny/train", "--nproc", 2, "--unset", "ae.from_pretrained", *options, cwd=prepared)
    assert done.returncode == 0, done.stdout + done.stderr
    (two,) = (tmp_path / "two").iterdir()
    monkeypatch.chdir(prepared)
    one = train(tmp_path / "one", [*LOOKS, *STANDING_STILL, "max_steps=2"])
    (look,), (other,) = read(one / "validation.jsonl"), read(two / "validation.jsonl")
    assert look == pytest.approx(other, rel=1e-5)
    pictures = [np.asarray(Image.open(run / "samples" / "step-00000002.png")).astype(int) for run in (one, two)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert pictures[0].std() > 1
