import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from opensora_cli.data.position import Position
from opensora_cli.training.checkpoint import Checkpoints, Progress, TrainState
from opensora_cli.training.draws import seeded_init
from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import Optimizer
from schemas.checkpoint import CheckpointConfig
from schemas.errors import OsoraError
from schemas.optim import OptimConfig


def state(seed: int = 0, width: int = 64) -> TrainState:
    with seeded_init(seed):
        module = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))
    optimizer = Optimizer(module, OptimConfig(), None)
    module(torch.ones(3, width)).square().sum().backward()
    optimizer.step(0)
    return TrainState(module, optimizer, Ema(module, 0.9))


def checkpoints(path: Path, **config: object) -> Checkpoints:
    return Checkpoints(path, CheckpointConfig.model_validate(config), torch.bfloat16)


def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved, fresh = state(0), state(1)
    store = checkpoints(tmp_path)
    store.save(Progress(5, Position(1, 2, 4, ((2, 10), (3, 1)))), saved)
    store.wait()
    latest = store.latest()
    assert latest is not None
    assert store.load(latest, fresh) == Progress(5, Position(1, 2, 4, ((2, 10), (3, 1))))
    for name, tensor in saved.tensors().items():
        assert torch.equal(fresh.tensors()[name], tensor), name


def test_a_checkpoint_of_another_format(tmp_path: Path) -> None:
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(5), state())
    latest = store.latest()
    assert latest is not None
    (latest / "progress.json").write_text('{"format": 1, "update": 5, "epoch": 0, "batch": 5}')
    with pytest.raises(
        OsoraError, match=r"cannot resume from .*: its format is 1, this version of osora reads format 2"
    ):
        store.load(latest, state())


def test_exports_carry_the_modules_own_keys_in_the_recipes_precision(tmp_path: Path) -> None:
    saved = state()
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(5), saved)
    exported = load_file(tmp_path / "step-00000005" / "model.safetensors")
    assert exported.keys() == saved.module.state_dict().keys()
    assert exported["0.weight"].dtype == torch.bfloat16
    assert exported["1.num_batches_tracked"].dtype == torch.int64
    assert (
        load_file(tmp_path / "step-00000005" / "ema.safetensors").keys() == dict(saved.module.named_parameters()).keys()
    )


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = checkpoints(tmp_path, keep_n_latest=2)
    for update in (1, 2, 3, 10):
        store.save(Progress(update), state())
    store.wait()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000003", "step-00000010"]


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 8 kB: the kernel refuses the write as it does on a full disk.

    The limit is the whole process's, so it is lifted before the test ends: a test run that writes its report into a
    long file could not print its next line.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_save_that_the_disk_refuses_leaves_the_last_one_and_nothing_else(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    store.save(Progress(1), state())
    store.wait()
    message = r"cannot save a checkpoint.*last complete checkpoint is .*step-00000001"
    with full_disk(), pytest.raises(OsoraError, match=message):
        store.save(Progress(2), state())
        store.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_an_interrupted_save_is_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    (tmp_path / ".step-00000009.partial").mkdir()
    (tmp_path / ".step-00000003.removing").mkdir()
    assert store.latest() is None
    store.clear_leftovers()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(4), state())
    for file in (tmp_path / "step-00000004" / "state").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(OsoraError, match=r"cannot resume from .*step-00000004"):
        store.load(tmp_path / "step-00000004", state())
