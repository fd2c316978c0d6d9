"""What an asynchronous save costs training, against `torch.save` of the same state.

Each round does, in turn, so that a noisy machine slows all of them: two bare updates, `torch.save` of the state into one
file, and an update that begins with `Checkpoints.save`, as the trainer's does. An update is a forward and a backward pass
over `--tokens` rows, the wait for the copy, the optimizer's step and the average. Two figures:

- still: time within `Checkpoints.save` and within `await_copy`. On CUDA, where the host does not wait, it is left out.
- lost: the whole update with a save less the bare update beside it. This counts everything: standing still, and passes
  that are slower while the copy is made and the writing begins. It is the one that is compared with the bound.

What the thread still writes after that update is waited for before the next round and does not count. The first save also
makes the host memory that the later ones use again; it is printed by itself. Prints medians; the exit code is 1 above the
bound. A state of 200 MB is 12.5 million parameters; 256 tokens of them are a short update: a clip of 33 frames at 256px
has 2304.

    python -m benchmarks.checkpoint [--megabytes 200] [--tokens 256] [--rounds 15] [--device cpu|cuda]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from opensora_cli.distributed.process import Process
from opensora_cli.training.checkpoint import Checkpoints, Progress, TrainState
from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import Optimizer
from schemas.checkpoint import CheckpointConfig
from schemas.optim import OptimConfig

BOUND = 0.15
LAYERS = 16
BYTES = 16  # of each parameter: weight, two moments, average


class Round(NamedTuple):
    """Seconds of one round."""

    plain: float  # torch.save
    bare: float  # an update
    again: float  # another, whose difference is the machine's noise
    saving: float  # an update with a save
    still: float  # of it, in the calls of `Checkpoints`


def make_state(megabytes: int, device: torch.device) -> TrainState:
    """Return a model of equal layers with optimizer and average, of about so many megabytes together."""
    width = int((megabytes * 1e6 / BYTES / LAYERS) ** 0.5)
    module = nn.Sequential(*(nn.Linear(width, width, device=device) for _ in range(LAYERS)))
    return TrainState(module, Optimizer(module, OptimConfig(), None), Ema(module, 0.99))


def update(state: TrainState, x_NC: Tensor, before_change: Callable[[], None]) -> None:
    """Do an update as the trainer does."""
    state.module(x_NC).square().mean().backward()
    state.optimizer.clip()
    before_change()
    state.optimizer.step(0)
    assert state.ema is not None
    state.ema.update(state.module)


class Watch:
    """Measures calls, each until the device has done everything too."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.still = 0.0

    def seconds(self, call: Callable[[], None]) -> float:
        """Return how long a call takes."""
        self._synchronize()
        started = time.perf_counter()
        call()
        self._synchronize()
        return time.perf_counter() - started

    def stand_still(self, call: Callable[[], None]) -> None:
        """Add the host's time in a call to that of standing still."""
        started = time.perf_counter()
        call()
        self.still += time.perf_counter() - started

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(folder: Path, megabytes: int, tokens: int, rounds: int, device: torch.device) -> list[Round]:
    """Return the seconds of every round, the first of them being a warm-up."""
    state = make_state(megabytes, device)
    x_NC = torch.randn(tokens, state.module[0].in_features, device=device)  # type: ignore[index, union-attr]
    store = Checkpoints(
        folder / "checkpoints", CheckpointConfig(keep_n_latest=1), torch.bfloat16, Process(0, 1, device)
    )
    watch = Watch(device)

    def bare() -> None:
        update(state, x_NC, store.await_copy)

    def saving(number: int) -> None:
        watch.stand_still(lambda: store.save(Progress(number), state))
        update(state, x_NC, lambda: watch.stand_still(store.await_copy))

    done = []
    bare()
    for number in range(1, rounds + 2):
        watch.still = 0.0
        plain = watch.seconds(lambda: torch.save(state.tensors(), folder / "state.pt"))
        times = watch.seconds(bare), watch.seconds(bare), watch.seconds(lambda number=number: saving(number))
        done.append(Round(plain, *times, watch.still))
        store.wait()
    return done


def main() -> int:
    """Measure, print and compare with the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200, help="size of the state, 1e6 bytes")
    parser.add_argument("--tokens", type=int, default=256, help="rows of the forward and backward pass")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, *done = measure(
            Path(folder), asked.megabytes, asked.tokens, asked.rounds, torch.device(asked.device)
        )
    plain, bare = (statistics.median(getattr(one, name) for one in done) for name in ("plain", "bare"))
    lost = statistics.median(one.saving - one.again for one in done)
    print(f"state: {asked.megabytes} MB on {asked.device}, {asked.tokens} tokens, {asked.rounds} rounds, medians")
    print(f"torch.save:      {1e3 * plain:8.1f} ms")
    print(f"bare update:     {1e3 * bare:8.1f} ms")
    print(f"noise of it:     {1e3 * statistics.median(abs(one.again - one.bare) for one in done):8.1f} ms")
    if asked.device == "cpu":
        still = statistics.median(one.still for one in done)
        print(f"standing still:  {1e3 * still:8.1f} ms, {still / plain:.1%} of torch.save (first {1e3 * first.still:.1f})")
    print(f"lost altogether: {1e3 * lost:8.1f} ms, {lost / plain:.1%} of torch.save; the bound is {BOUND:.0%}")
    print(f"                 (first {1e3 * (first.saving - first.again):.1f} ms)")
    return 0 if lost <= BOUND * plain else 1


if __name__ == "__main__":
    raise SystemExit(main())
