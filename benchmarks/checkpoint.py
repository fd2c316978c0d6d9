"""How long training stands still for a checkpoint: an asynchronous save against `torch.save` of the same state.

Each round does both in turn, so that a noisy machine slows both: the state changes, `torch.save` writes it into one file,
then `Checkpoints.save` takes its copy and returns; its background writing is waited for before the next round and does not
count. The first asynchronous save also makes the host memory that the later ones use again; it is printed by itself.
Prints the medians and their ratio; the exit code is 1 above the bound.

    python benchmarks/checkpoint.py [--megabytes 200] [--rounds 7] [--device cpu|cuda]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from opensora_cli.distributed.process import Process
from opensora_cli.training.checkpoint import Checkpoints, Progress, TrainState
from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import Optimizer
from schemas.checkpoint import CheckpointConfig
from schemas.optim import OptimConfig

BOUND = 0.15
LAYERS = 16
BYTES = 16  # of each parameter: weight, two moments, average


def make_state(megabytes: int, device: torch.device) -> TrainState:
    """Return a model of equal layers with optimizer and average, of about so many megabytes together."""
    width = int((megabytes * 1e6 / BYTES / LAYERS) ** 0.5)
    module = nn.Sequential(*(nn.Linear(width, width, device=device) for _ in range(LAYERS)))
    optimizer = Optimizer(module, OptimConfig(), None)
    state = TrainState(module, optimizer, Ema(module, 0.99))
    change(state)
    return state


def change(state: TrainState) -> None:
    """Do an update, as training does between two checkpoints."""
    for parameter in state.module.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    state.optimizer.step(0)
    if state.ema is not None:
        state.ema.update(state.module)


def seconds(device: torch.device, started: float) -> float:
    """Return the time since `started`, when the device has done everything too."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(folder: Path, megabytes: int, rounds: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Return the seconds of every `torch.save` and of every asynchronous save, the first of them being a warm-up."""
    state = make_state(megabytes, device)
    store = Checkpoints(
        folder / "checkpoints", CheckpointConfig(keep_n_latest=1), torch.bfloat16, Process(0, 1, device)
    )
    plain, stalls = [], []
    for number in range(1, rounds + 2):
        change(state)
        seconds(device, 0.0)
        started = time.perf_counter()
        torch.save(state.tensors(), folder / "state.pt")
        plain.append(seconds(device, started))
        started = time.perf_counter()
        store.save(Progress(number), state)
        stalls.append(seconds(device, started))
        store.wait()
    return plain, stalls


def main() -> int:
    """Measure, print and compare with the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200, help="size of the state, 1e6 bytes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, stalls = measure(Path(folder), asked.megabytes, asked.rounds, torch.device(asked.device))
    ratio = statistics.median(stalls[1:]) / statistics.median(plain[1:])
    print(f"state: {asked.megabytes} MB on {asked.device}, {asked.rounds} rounds, medians")
    print(f"torch.save:        {1e3 * statistics.median(plain[1:]):8.1f} ms")
    print(f"asynchronous save: {1e3 * statistics.median(stalls[1:]):8.1f} ms (the first one {1e3 * stalls[0]:.1f} ms)")
    print(f"training stands still for {ratio:.1%} of torch.save; the bound is {BOUND:.0%}")
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
