"""Adapters from `osora train --layer lora` to a clip: trained, resumed, sampled, exported, merged."""

from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from opensora_cli.ckpt.adapters import export_adapter, merge_adapter
from opensora_cli.ckpt.convert import Output
from opensora_cli.sampling import Pipeline
from opensora_cli.training.draws import seeded_init
from opensora_cli.training.job import run_training
from opensora_models.build import build_denoiser
from schemas.errors import OsoraError
from schemas.resolve import resolve
from tests.cli.conftest import Osora

SETS = ["dataset.num_workers=0", "optim.warmup_steps=0", "optim.lr=0.02", "checkpoint.every=2", "lora.r=4"]
SAMPLING = [
    "num_steps=2", "num_frames=5", 'resolution="64px"', 'aspect_ratio="1:1"', "guidance=3.0", "guidance_img=1.5",
    "fps_save=8", 'motion_score="none"',
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(prepared: Path) -> Path:
    """The prepared clips, and a denoiser to put adapters on."""
    with seeded_init(0):
        save_file(build_denoiser(resolve("tiny/train").recipe.model).state_dict(), prepared / "base.safetensors")
    return prepared


def train(outputs: str, updates: int, *sets: str, resume: str | None = None) -> Path:
    """Train in this process; return the run's last checkpoint."""
    asked = [*SETS, f'outputs="{outputs}"', f"max_steps={updates}", 'model.from_pretrained="base.safetensors"', *sets]
    resolved = resolve("tiny/train", layers=["layers/lora"], sets=asked, unsets=["ae.from_pretrained"])
    assert run_training(resolved, resume=resume, dry_run=False, console=Console(quiet=True)) == 0
    (run,) = Path(outputs).iterdir()
    return max((run / "checkpoints").glob("step-*"))


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    (file,) = (checkpoint / "state").iterdir()
    return load_file(file)


def test_a_resumed_run_with_adapters_repeats_the_whole_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    dropout = "lora.lora_dropout=0.2"
    whole = state(train(f"{tmp_path}/whole", 4, dropout))
    first = train(f"{tmp_path}/parts", 2, dropout)
    assert {path.name for path in first.iterdir()} == {
        "adapter", "adapter_ema", "manifest.json", "progress.json", "state"
    }  # fmt: skip
    parts = state(train(f"{tmp_path}/parts", 4, dropout, resume="auto"))
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[key], whole[key]) for key in whole)
    assert all("lora_" in key for key in whole)
    assert any(float(tensor.abs().max()) > 0 for key, tensor in whole.items() if "model" in key and "lora_B" in key)


def test_samples_of_a_run_are_those_of_merged_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    checkpoint = train(f"{tmp_path}/run", 2)
    run = checkpoint.parent.parent
    config = resolve(run / "recipe.lock.toml").recipe.model
    merge_adapter(
        Path("base.safetensors"), checkpoint / "adapter", Output(tmp_path / "merged.safetensors"), 1.0, config
    )
    (peft, *_), (diffusers,) = (
        export_adapter(checkpoint / "adapter", config, layout, Output(tmp_path / name))
        for layout, name in ((None, "peft"), ("diffusers", "diffusers"))
    )

    def clip(recipe: str | Path, *sets: str) -> torch.Tensor:
        unsets = ["ae.from_pretrained"] if recipe == "tiny/sample" else []
        asked = [*(f"sampling.{text}" for text in SAMPLING), *sets]
        return Pipeline.from_recipe(recipe, sets=asked, unsets=unsets)("a red circle moves left")[0].video

    def with_adapter(path: Path, weight: float = 1.0) -> torch.Tensor:
        return clip("tiny/sample", 'model.from_pretrained="base.safetensors"', f'adapters={{"{path}"={weight}}}')

    merged = clip("tiny/sample", f'model.from_pretrained="{tmp_path}/merged.safetensors"')
    assert torch.equal(clip(run), merged)
    assert torch.equal(with_adapter(peft.parent), merged)
    torch.testing.assert_close(with_adapter(diffusers), merged, atol=1e-5, rtol=1e-5)
    assert not torch.equal(with_adapter(checkpoint, 0.0), merged)
    with pytest.raises(OsoraError, match=r"the run trained adapters, not a whole model\. Name it under \[adapters\]"):
        clip("tiny/sample", f'model.from_pretrained="{run}"')


def test_the_commands(folder: Path, osora: Osora, tmp_path: Path) -> None:
    sets = [part for text in (*SETS, f'outputs="{tmp_path}/runs"', "max_steps=2") for part in ("--set", text)]
    done = osora(
        "train", "tiny/train", "--layer", "layers/lora", "--unset", "ae.from_pretrained", *sets,
        "--set", 'model.from_pretrained="base.safetensors"', cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    done = osora(
        "sample", run, "--ema", "--prompt", "a red circle moves left", "--num-steps", "1",
        "--num-frames", "5", "--resolution", "64px", "--save-dir", tmp_path / "samples", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "samples").glob("*.mp4"))) == 1
    done = osora("ckpt", "merge-lora", "base.safetensors", run, tmp_path / "merged.safetensors", cwd=folder)
    assert done.returncode == 0, done.stderr
