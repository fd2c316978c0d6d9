"""ColossalAI's engine trains what one process trains. It is installed by choice: `make colossalai-test` runs these."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from opensora_cli.distributed.launch import free_port
from opensora_cli.distributed.process import start_process
from opensora_cli.extras import require_colossalai
from opensora_cli.supported import check_supported
from schemas.errors import UsageError
from schemas.parallel import ParallelConfig
from schemas.resolve import resolve
from tests.cli.conftest import REPOSITORY, environment
from tests.distributed import jobs
from tests.distributed.modes import COLOSSALAI, MODES, Mode
from tests.distributed.train_tiny import ALONE, copy_state

TOLERANCE = 1e-5
ENGINE = ["parallel.engine=colossalai", "parallel.plugin=ddp"]
needs_it = pytest.mark.skipif(find_spec("colossalai") is None, reason="`make colossalai` installs it")


@pytest.fixture(scope="session")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all modes' runs, and of PyTorch's checkpoint that was loaded by ColossalAI's engine."""
    out = tmp_path_factory.mktemp("colossalai")
    source = jobs.reference(out, COLOSSALAI["colossalai-ddp-2"]).name
    for processes in (2, 4):
        names = [name for name, mode in COLOSSALAI.items() if mode.world_size == processes]
        jobs.train(processes, out, *names, *([f"{source}>colossalai-tensor-2"] if processes == 2 else []))
    return out


@needs_it
@pytest.mark.parametrize("name", COLOSSALAI)
def test_ten_updates_are_those_of_one_process(boosted: Path, name: str) -> None:
    found = jobs.differences(boosted / name, jobs.reference(boosted, COLOSSALAI[name]))
    print(name, found)
    assert max(found.values()) < TOLERANCE, found


@needs_it
def test_checkpoints_open_in_the_other_engine(boosted: Path, tmp_path: Path) -> None:
    source = jobs.reference(boosted, COLOSSALAI["colossalai-ddp-2"])
    assert jobs.same_state(boosted / f"{source.name}>colossalai-tensor-2", source)
    copy_state(boosted / "colossalai-tensor-2", tmp_path / "one", Mode(1, {}, 1), ALONE)
    assert jobs.same_state(tmp_path / "one", boosted / "colossalai-tensor-2")


@needs_it
@pytest.mark.parametrize("name", ["zero1-2", "zero2-2"])
def test_sharing_out_optimizers_is_refused_on_a_cpu(tmp_path: Path, name: str) -> None:
    table = {**MODES[name].parallel, "engine": "colossalai"}
    code = (
        "from opensora_cli.distributed.colossal import lay_out_by_colossalai\n"
        "from schemas.parallel import ParallelConfig\nfrom tests.distributed.train_tiny import ALONE\n"
        f"lay_out_by_colossalai(None, ParallelConfig(**{table!r}), ALONE)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert "ColossalAI shares out optimizers on GPUs alone" in done.stderr


@needs_it
def test_t5_through_shardformer_gives_the_same_features(tmp_path: Path) -> None:
    code = (
        "import copy, torch\nfrom transformers import T5Config, T5EncoderModel\n"
        "from opensora_cli.distributed.colossal import shard_t5\n"
        "sizes = dict(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)\n"
        "model = T5EncoderModel(T5Config(feed_forward_proj='gated-gelu', **sizes)).eval()\n"
        "ids = torch.arange(14).view(2, 7)\nsharded = shard_t5(copy.deepcopy(model))\n"
        "assert 'jit_fused' in sharded.encoder.block[0].layer[1].forward.__qualname__\n"
        "print(float((model(ids).last_hidden_state - sharded(ids).last_hidden_state).abs().max()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < TOLERANCE


@needs_it
def test_colossalais_own_launcher_places_processes(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\nfrom opensora_cli.distributed.place import find_place\nplace = find_place(os.environ)\n"
        "pathlib.Path(__file__).with_name(f'rank-{place.rank}').write_text(f'{place.world_size} {place.local_rank}')"
    )
    (tmp_path / "where.py").write_text(code)
    launcher = Path(sys.executable).parent / "colossalai"
    command = [launcher, "run", "--nproc_per_node", "2", "--master_port", str(free_port()), tmp_path / "where.py"]
    path = f"{launcher.parent}:{environment()['PATH']}"
    done = subprocess.run(
        command, env=environment() | {"PATH": path}, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["2 0", "2 1"]


def test_without_the_package_a_job_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora_cli.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ColossalAI is not installed. Run `make colossalai`"):
        require_colossalai()
    with pytest.raises(UsageError, match="not installed"):
        check_supported(resolve("tiny/train", sets=ENGINE).recipe)


def test_a_job_of_one_has_groups_where_the_engine_asks_for_them() -> None:
    code = (
        "from opensora_cli.distributed.process import start_process, leave\nfrom schemas.parallel import ParallelConfig\n"
        "import torch.distributed as dist\n"
        "process = start_process('cpu', ParallelConfig(engine='colossalai', plugin='ddp'))\n"
        "print(process.world_size, dist.get_world_size())\nleave()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout == "1 1\n", done.stderr
    assert start_process("cpu", ParallelConfig()).world_size == 1
