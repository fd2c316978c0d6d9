import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from opensora_cli.ckpt.verify import verify
from opensora_cli.data.position import Position
from opensora_cli.training import staging
from opensora_cli.training.checkpoint import Checkpoints, Progress, TrainState
from opensora_cli.training.checkpoint_manifest import is_whole, write_manifest
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
    write_manifest(latest)
    with pytest.raises(
        OsoraError, match=r"cannot resume from .*: its format is 1, this version of osora reads format 3"
    ):
        store.load(latest, state())


def test_a_state_that_pytorchs_own_writer_wrote_is_read_too(tmp_path: Path) -> None:
    saved, fresh = state(0), state(1)
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(5), saved)
    checkpoint = tmp_path / "step-00000005"
    shutil.rmtree(checkpoint / "state")
    writer = HuggingFaceStorageWriter(str(checkpoint / "state"), save_distributed=True)
    dcp_save(saved.tensors(), storage_writer=writer, no_dist=True)
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)
    store.load(checkpoint, fresh)
    assert all(torch.equal(fresh.tensors()[name], tensor) for name, tensor in saved.tensors().items())


def test_exports_carry_the_modules_own_keys_in_the_recipes_precision(tmp_path: Path) -> None:
    saved = state()
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(5), saved)
    exported = load_file(tmp_path / "step-00000005" / "model.safetensors")
    assert exported.keys() == saved.module.state_dict().keys()
    assert exported["0.weight"].dtype == torch.bfloat16
    assert exported["1.num_batches_tracked"].dtype == torch.int64
    assert load_file(tmp_path / "step-00000005" / "ema.safetensors").keys() == exported.keys()


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


def test_a_truncated_file_is_named_and_the_checkpoint_before_it_offered(tmp_path: Path) -> None:
    store = checkpoints(tmp_path / "checkpoints", async_save=False)
    for update in (2, 4, 6, 8):
        store.save(Progress(update), state())
    for name, length in (("step-00000006", 0), ("step-00000008", 100)):
        (file,) = (store.folder / name / "state").iterdir()
        size = file.stat().st_size
        file.write_bytes(file.read_bytes()[:length])
    message = (
        rf"cannot resume from .*step-00000008: .*{file.name} has 100 bytes, and {size} were written\. The one before it, "
        rf"step-00000004, is whole: .*osora ckpt prune {tmp_path} --damaged"
    )
    with pytest.raises(OsoraError, match=message):
        store.load(store.folder / "step-00000008", state())
    assert [path.name for path, found in verify(tmp_path).items() if found] == ["step-00000006", "step-00000008"]


def test_a_first_checkpoint_that_is_damaged_offers_none(tmp_path: Path) -> None:
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(4), state())
    (tmp_path / "step-00000004" / "progress.json").unlink()
    with pytest.raises(OsoraError, match=r"progress\.json is missing\. No checkpoint before it is whole"):
        store.load(tmp_path / "step-00000004", state())


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    store = checkpoints(tmp_path / "checkpoints", async_save=False)
    store.save(Progress(4), state())
    checkpoint = store.folder / "step-00000004"
    assert verify(checkpoint) == {checkpoint: []}
    file = checkpoint / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert is_whole(checkpoint)
    (line,) = verify(tmp_path)[checkpoint]
    assert line == f"{file} is not what was written: its SHA-256 is another"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [(None, "has no manifest.json: it is not whole"), ("{", "is damaged"), ('{"files": 3}', "is damaged")],
)
def test_a_checkpoint_without_a_manifest_to_trust(manifest: str | None, message: str, tmp_path: Path) -> None:
    store = checkpoints(tmp_path, async_save=False)
    store.save(Progress(4), state())
    file = tmp_path / "step-00000004" / "manifest.json"
    file.unlink() if manifest is None else file.write_text(manifest)
    with pytest.raises(OsoraError, match=f"cannot resume from .*{message}"):
        store.load(tmp_path / "step-00000004", state())


def test_what_is_written_is_the_state_of_the_moment_it_was_saved(tmp_path: Path) -> None:
    """The second save uses the first one's memory again, and training goes on while it is written."""
    saved, fresh = state(0), state(1)
    store = checkpoints(tmp_path)
    for update in (1, 2):
        wanted = {name: tensor.clone() for name, tensor in saved.tensors().items()}
        store.save(Progress(update), saved)
        store.await_copy()
        for tensor in saved.tensors().values():
            tensor.detach().zero_()
        store.wait()
        store.load(tmp_path / f"step-{update:08d}", fresh)
        assert all(torch.equal(fresh.tensors()[name], tensor) for name, tensor in wanted.items())
        for name, tensor in state(2).tensors().items():
            saved.tensors()[name].detach().copy_(tensor)


def test_staged_tensors_share_memory_and_overlap_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SLAB", 2048)
    tensors = {
        "scalar": torch.tensor(3.0),
        "integers": torch.arange(5),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "none": torch.empty(0, 4),
        "large": torch.randn(100, 9),
        "transposed": torch.randn(8, 4).T,
        "half": torch.randn(30).bfloat16(),
    }
    stage = staging.Staging(torch.device("cpu"), keep=True)
    copies = []
    for factor in (1, 2):
        for name, tensor in tensors.items():
            (stage.add if name in ("bytes", "half") else stage.add_later)(name, factor * tensor)
        copies.append(stage.begin().finish())
        for name, tensor in tensors.items():
            assert torch.equal(copies[-1][name], factor * tensor), name
            assert copies[-1][name].dtype == tensor.dtype
    assert all(copies[0][name].data_ptr() == copies[1][name].data_ptr() for name in tensors)
