"""`osora ckpt` as a program; what it writes is tested in tests/unit/test_ckpt.py."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from opensora_cli.training.checkpoint_manifest import write_manifest
from opensora_models.mmdit.model import MMDiT
from schemas.resolve import resolve
from tests.cli.conftest import Osora


def test_weights_go_out_and_come_back(osora: Osora, tmp_path: Path) -> None:
    recipe = resolve("tiny/train").recipe
    torch.manual_seed(0)
    state = {key: torch.randn_like(tensor) for key, tensor in MMDiT(recipe.model).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")

    done = osora("ckpt", "convert", "w.safetensors", "flux", "--layout", "flux", "--shard-gb", "0.001")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "wrote flux/model.safetensors.index.json"
    done = osora("ckpt", "inspect", "flux", "--json")
    assert json.loads(done.stdout)["recipe"]["model"]["fused_qkv"] is True, done.stderr

    done = osora("ckpt", "import", "flux", "own.safetensors", "--recipe", "tiny/train")
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(load_file(tmp_path / "own.safetensors"), state, atol=0, rtol=0)


def test_what_is_wrong_is_said_before_anything_is_written(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    for arguments, code, message in (
        (("inspect", "none.safetensors"), 1, "no such file or folder"),
        (("convert", "w.safetensors", "out"), 1, "cannot be read as weights"),
        (("convert", "w.safetensors", "w.safetensors"), 2, "nothing is overwritten"),
        (("import", "w.safetensors", "out", "--recipe", "tiny/sample"), 2, "give one of kind train or vae-train"),
        (("export", ".", "out"), 1, "neither a run folder nor one of its checkpoints"),
    ):
        done = osora("ckpt", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_damaged_checkpoint_is_found_and_removed(osora: Osora, tmp_path: Path) -> None:
    for update in (1, 2):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{update:08d}"
        checkpoint.mkdir(parents=True)
        save_file({"x": torch.zeros(4)}, checkpoint / "model.safetensors")
        write_manifest(checkpoint)
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = osora("ckpt", "inspect", "run", "--verify")
    assert done.returncode == 1, done.stderr
    assert "run/checkpoints/step-00000001 is what was written" in done.stdout
    assert "run/checkpoints/step-00000002/model.safetensors is not what was written" in done.stdout
    done = osora("ckpt", "prune", "run", "--damaged")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000001"]
