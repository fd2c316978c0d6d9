"""What an asynchronous save costs training, against `torch.save` of the same state.

An update is a forward and a backward pass over `--tokens` rows, the wait for the copy, the optimizer's step and the
average; one with a save begins with `Checkpoints.save`, as the trainer's does. Each round does, in turn, so that a noisy
machine slows all of them: `torch.save` of the state into one file, a bare update, an update with a save whose writing is
held back until the update is over, another bare update, and an update with a save as it is. Figures:

- still: time within `Checkpoints.save` and within `await_copy`. On CUDA, where the host does not wait, it is left out.
- lost to the copy: the whole update with the save that is held back, less the mean of the bare ones beside it. This counts
  standing still and also what passes lose to the copy beside them. It is the one that is compared with the bound.
- lost with writing: the same of the save as it is. The bound is not for it: a thread writes while training goes on. Where
  no core is free it comes to the processor time that the writing takes, which is printed beside it.

What is still written after an update is waited for before the next. The first save also makes the host memory that the
later ones use again; it is printed by itself. Prints medians; the exit code is 1 above the bound. A state of 200 MB is
12.5 million parameters; 256 tokens of them are a short update: a clip of 33 frames at 256px has 2304.

    python -m benchmarks.checkpoint [--megabytes 200] [--tokens 256] [--rounds 15] [--device cpu|cuda]
"""

import argparse
import statistics
import tempfile
import threading
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
from opensora_cli.training.staging import Copy, Staging
from opensora_models.lora import AdapterConfig
from schemas.checkpoint import CheckpointConfig
from schemas.optim import OptimConfig

BOUND = 0.15
LAYERS = 16
BYTES = 16  # of each parameter: weight, two moments, average


class Round(NamedTuple):
    """Seconds of one round."""

    plain: float  # torch.save
    bare: float  # an update
    held: float  # an update with a save, without its writing
    again: float  # another bare one, whose difference is the machine's noise
    saving: float  # an update with a save
    still: float  # of `held`, in the calls of `Checkpoints`
    writing: float  # processor time of the thread

    @property
    def lost_to_copy(self) -> float:
        return self.held - (self.bare + self.again) / 2

    @property
    def lost_with_writing(self) -> float:
        return self.saving - (self.bare + self.again) / 2


class HeldStaging(Staging):
    """Keeps the thread that has its copy from writing it until the gate opens."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, keep=True)
        self.gate = threading.Event()

    def forget(self) -> None:
        """Wait at the gate; `Copy.finish` comes here when everything has arrived."""
        self.gate.wait()


class MeasuredCheckpoints(Checkpoints):
    """Measures the processor time of the writing thread."""

    writing = 0.0

    def _write(self, progress: Progress, copy: Copy, adapter: AdapterConfig | None) -> None:
        super()._write(progress, copy, adapter)
        self.writing = time.thread_time()  # the thread is this save's own


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
    config = CheckpointConfig(keep_n_latest=1)
    store = MeasuredCheckpoints(folder / "checkpoints", config, torch.bfloat16, Process(0, 1, device))
    gate = hold_back(store)
    watch = Watch(device)

    def bare() -> None:
        update(state, x_NC, store.await_copy)

    def saving() -> None:
        watch.stand_still(lambda: store.save(Progress(1), state))
        update(state, x_NC, lambda: watch.stand_still(store.await_copy))

    done = []
    bare()
    for _ in range(rounds + 1):
        plain = watch.seconds(lambda: torch.save(state.tensors(), folder / "state.pt"))
        before = watch.seconds(bare)
        gate.clear()
        watch.still = 0.0
        held, still = watch.seconds(saving), watch.still
        gate.set()
        store.wait()
        again = watch.seconds(bare)
        free = watch.seconds(saving)
        store.wait()
        done.append(Round(plain, before, held, again, free, still, store.writing))
    return done


def hold_back(store: Checkpoints) -> threading.Event:
    """Let the writing of a store's saves wait for the gate that is returned."""
    staging = HeldStaging(store.process.device)
    store._staging = staging
    return staging.gate


def main() -> int:
    """Measure, print and compare with the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200, help="size of the state, 1e6 bytes")
    parser.add_argument("--tokens", type=int, default=256, help="rows of the forward and backward pass")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, *done = measure(Path(folder), asked.megabytes, asked.tokens, asked.rounds, torch.device(asked.device))
    middle = {
        name: statistics.median(getattr(one, name) for one in done)
        for name in ("plain", "bare", "still", "lost_to_copy", "lost_with_writing", "writing")
    }
    plain, lost = middle["plain"], middle["lost_to_copy"]
    print(f"state: {asked.megabytes} MB on {asked.device}, {asked.tokens} tokens, {asked.rounds} rounds, medians")
    print(f"torch.save:        {1e3 * plain:8.1f} ms")
    print(f"bare update:       {1e3 * middle['bare']:8.1f} ms")
    print(f"two of them apart: {1e3 * statistics.median(abs(one.again - one.bare) for one in done):8.1f} ms, the noise")
    if asked.device == "cpu":
        still = middle["still"]
        print(f"standing still:    {1e3 * still:8.1f} ms, {still / plain:.1%} of torch.save")
    print(f"lost to the copy:  {1e3 * lost:8.1f} ms, {lost / plain:.1%} of torch.save; the bound is {BOUND:.0%}")
    print(f"  the first time:  {1e3 * first.lost_to_copy:8.1f} ms")
    print(
        f"lost with writing: {1e3 * middle['lost_with_writing']:8.1f} ms, which takes {middle['writing']:.2f} s of a core"
    )
    return 0 if lost <= BOUND * plain else 1


if __name__ == "__main__":
    raise SystemExit(main())
