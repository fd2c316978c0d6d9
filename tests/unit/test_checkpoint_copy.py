"""What a checkpoint holds while training goes on before its copy is made: the state of the moment it was saved."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import Process
from opensora_cli.training.checkpoint import Checkpoints, Progress, TrainState
from opensora_cli.training.draws import Draws, seeded_init
from opensora_cli.training.ema import Ema
from opensora_cli.training.looks import at_rest
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.objective import Adversary, Loss
from opensora_cli.training.optim import Optimizer
from opensora_cli.training.staging import Copy, Staging
from opensora_cli.training.trainer import Trainer
from schemas.checkpoint import CheckpointConfig
from schemas.errors import OsoraError
from schemas.optim import OptimConfig
from schemas.recipes import VaeTrainRecipe
from tests.unit.training_fakes import FakeBatch, FakeObjective, recipe, trainer


class LateStaging(Staging):
    """Copies nothing that was left for later before the gate opens."""

    gate: threading.Event

    def begin(self) -> Copy:
        self.gate.clear()
        return super().begin()

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        self.gate.wait()
        return super().copy(tensors)


class LateCheckpoints(Checkpoints):
    """The slowest copy there is: it begins when somebody waits for it, or else with the next save and the run's end.

    Keeps the state of the moment of every save. `waits=False` lets the state change at once, as if nobody had asked.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, *, waits: bool = True) -> None:
        super().__init__(folder, config, torch.float32)
        self._staging = LateStaging(torch.device("cpu"), keep=True)
        self._staging.gate = self.gate = threading.Event()
        self.waits = waits
        self.wanted: dict[int, dict[str, Tensor]] = {}

    def save(self, progress: Progress, state: TrainState) -> None:
        self.wanted[progress.update] = {name: tensor.clone() for name, tensor in state.tensors().items()}
        super().save(progress, state)

    def await_copy(self) -> None:
        if self.waits:
            self.gate.set()
            super().await_copy()

    def wait(self) -> None:
        self.gate.set()
        super().wait()

    def wrong(self) -> set[tuple[int, str]]:
        """Return the updates and tensors that were saved otherwise than they were."""
        found = set()
        for update, tensors in self.wanted.items():
            (file,) = (self.folder / f"step-{update:08d}" / "state").iterdir()
            saved = load_file(file)
            assert saved.keys() == tensors.keys()
            found |= {(update, name) for name, tensor in tensors.items() if not torch.equal(saved[name], tensor)}
        return found


class Contest(FakeObjective):
    """A module with a batch norm, and an adversary with another, so that forward passes change buffers of both."""

    def __init__(self, *nan_at: int) -> None:
        super().__init__(*nan_at)
        with seeded_init(1):
            self.module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
            judge = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
        self.adversary = Adversary(judge, OptimConfig(lr=0.05))

    def losses(self, batch: FakeBatch, draws: Draws) -> Iterator[Loss]:
        yield from super().losses(batch, draws)
        assert self.adversary is not None
        fake_B1 = self.module(batch.video).detach()
        yield Loss(self.adversary.module(fake_B1).square().mean(), {}, of_adversary=True)


class Swap:
    """A look with averaged weights."""

    every = 1

    def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
        with at_rest(state, layout, ema=True):
            pass


def late_run(path: Path, config: VaeTrainRecipe, objective: FakeObjective, *, waits: bool) -> tuple[Trainer, set[str]]:
    """Train; return the trainer and the tensors that some checkpoint holds otherwise than they were."""
    run = trainer(path, config, objective)
    store = run.checkpoints = LateCheckpoints(run.checkpoints.folder, config.checkpoint, waits=waits)
    run.fit()
    assert len(store.wanted) > 1
    return run, {name for _, name in store.wrong()}


@pytest.mark.parametrize("release", [False, True])
def test_an_update_waits_until_the_copy_is_made(release: bool, tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "max_steps": 4,
        "checkpoint": {"every": 1, "keep_n_latest": 9},
        "optim": {"lr": 0.05, "ema_decay": 0.9, "grad_clip": 0.0},
        "memory": {"release_gradients": release},
    }
    run, wrong = late_run(tmp_path / "waits", recipe(**settings), Contest(), waits=True)
    assert wrong == set()
    _, wrong = late_run(tmp_path / "does not", recipe(**settings), Contest(), waits=False)
    # Only what a forward pass changes was copied before training went on.
    assert run.state.buffers() == {name for name in run.state.tensors() if "running" in name or "batches" in name}
    assert wrong == run.state.tensors().keys() - run.state.buffers()


def test_released_gradients_wait_in_the_backward_pass(tmp_path: Path) -> None:
    """The end of an update, which waits too, would be too late."""
    run = trainer(tmp_path, recipe(optim={"grad_clip": 0.0}, memory={"release_gradients": True}), Contest())
    waited_at: list[int] = []
    (batch,) = [batch for batch, _ in zip(run.loader.epoch(0), range(1), strict=False)]
    before = run.state.module[1].weight.detach().clone()

    def wait() -> None:
        assert torch.equal(run.state.module[1].weight, before) or waited_at
        waited_at.append(0)

    run.state.optimizer.begin(0, wait)
    run.backward.run(0, [batch])
    assert len(waited_at) == len(run.state.optimizer.params)
    assert not torch.equal(run.state.module[1].weight, before)


@pytest.mark.parametrize("waits", [True, False])
def test_a_look_with_averaged_weights_waits_until_the_copy_is_made(waits: bool, tmp_path: Path) -> None:
    """After an update that was left out nothing else has waited. Without it the copy comes in the middle of the look."""
    settings: dict[str, object] = {
        "max_steps": 3,
        "checkpoint": {"every": 1, "keep_n_latest": 9},
        "optim": {"lr": 0.05, "ema_decay": 0.9, "max_skips": 1},
    }
    run = trainer(tmp_path, recipe(**settings), FakeObjective(2))
    store = run.checkpoints = LateCheckpoints(run.checkpoints.folder, run.recipe.checkpoint, waits=waits)

    class Slow(Swap):
        def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
            with at_rest(state, layout, ema=True):
                if update == 2:
                    store.wait()

    run.looks = [Slow()]
    run.fit()
    wrong = {name for update, name in store.wrong() if update == 1}
    assert bool(wrong) is not waits
    assert waits or wrong == {f"{part}.{name}" for part in ("model", "ema") for name in ("weight", "bias")}


def test_late_copies_change_nothing_in_a_run(tmp_path: Path) -> None:
    ends = []
    for late in (False, True):
        run = trainer(tmp_path / str(late), recipe(max_steps=5, checkpoint={"every": 1}), Contest())
        if late:
            run.checkpoints = LateCheckpoints(run.checkpoints.folder, run.recipe.checkpoint)
        run.fit()
        ends.append(run.state.tensors())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def small_state(device: str = "cpu", width: int = 8) -> TrainState:
    module = nn.Linear(width, width, device=device)
    return TrainState(module, Optimizer(module, OptimConfig(), None), Ema(module, 0.9))


def test_loading_waits_until_the_copy_is_made(tmp_path: Path) -> None:
    state = small_state()
    store = LateCheckpoints(tmp_path, CheckpointConfig())
    store.save(Progress(1), state)
    store.wait()
    with torch.no_grad():
        state.module.weight.add_(1)
    store.save(Progress(2), state)
    store.load(tmp_path / "step-00000001", state)
    store.wait()
    assert torch.equal(state.module.weight, store.wanted[1]["model.weight"])
    assert store.wrong() == set()


def test_a_copy_that_fails_lets_training_go_on_to_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(staging: Staging, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        raise RuntimeError("no memory for it")

    monkeypatch.setattr(Staging, "copy", no_memory)
    store = Checkpoints(tmp_path, CheckpointConfig(), torch.float32)
    store.save(Progress(1), small_state())
    store.await_copy()
    with pytest.raises(OsoraError, match="no memory for it"):
        store.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("slow", ["update", "copy"])
def test_on_a_gpu_copies_and_updates_wait_for_one_another(slow: str, tmp_path: Path) -> None:
    """Behind a long kernel the update before the save is late, or the copy is: the other must not overtake it."""
    device = torch.device("cuda", 0)
    state = small_state("cuda", 1024)
    store = Checkpoints(tmp_path, CheckpointConfig(), torch.float32, Process(0, 1, device))
    cycles = 200_000_000
    for update in (1, 2):
        if slow == "update":
            torch.cuda._sleep(cycles)
        with torch.no_grad():
            state.module.weight.fill_(update)
        if slow == "copy":
            assert store._staging._stream is not None
            with torch.cuda.stream(store._staging._stream):
                torch.cuda._sleep(cycles)
        store.save(Progress(update), state)
        store.await_copy()
        with torch.no_grad():
            state.module.weight.zero_()
        store.wait()
        (file,) = (tmp_path / f"step-{update:08d}" / "state").iterdir()
        assert bool((load_file(file)["model.weight"] == update).all())
