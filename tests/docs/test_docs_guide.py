"""The guide to training: every command on the page runs, with tiny models and made clips in place of real ones."""

import csv
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

from opensora_cli import main as program
from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.distributed.launch import free_port
from opensora_cli.training.draws import seeded_init
from opensora_models.build import build_autoencoder, build_denoiser
from schemas.resolve import resolve
from tests.cli.conftest import OSORA, REPOSITORY, environment
from tests.docs.console import BLOCK, TITLE, commands

PAGE = (REPOSITORY / "docs" / "guide.md").read_text()
SMALL = """\
_base_ = ["layers/tiny_denoiser"]
dtype = "fp32"
epochs = 100
max_steps = 2

[ae]
_delete_ = ["use_spatial_tiling"]
from_pretrained = "demo/vae.safetensors"

[model]
_delete_ = ["cond_embed"]

[dataset]
num_workers = 0

[buckets]
_delete_ = true
"64px" = { 17 = [1.0, 1] }

[parallel]
_delete_ = true

[optim]
warmup_steps = 0

[checkpoint]
every = 1

[logging]
log_every = 1
"""
"""What makes a recipe of the page one for a CPU."""
LAYERED = ("train", "cache", "data", "ckpt import", "config validate")
"""Commands that meet models, clips or the machine, and so get that layer; a run has it already."""
FLUX = {"cond_embed": False, "guidance_embed": True, "fused_qkv": True, "use_liger_rope": False}
STEPS = ["--num-frames", "5", "--set", "sampling.num_steps=2", "--set", "sampling.resolution=64px"]


def test_every_command_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _, **options: str(options["local_dir"]))
    prepare(tmp_path)
    lines = list(write_files_and_list_commands())
    assert len(lines) > 20
    for line in lines:
        words = arguments(line)
        others = subprocess.Popen([OSORA, *words], env=environment()) if "--nnodes" in words else None
        code = run(["osora", *words], monkeypatch)
        assert code == 0, f"$ osora {' '.join(words)}"
        assert others is None or others.wait() == 0
        if line.startswith("osora meta"):
            caption(Path("data/meta.csv"))


def prepare(folder: Path) -> None:
    """Make what the reader is assumed to have: clips, weights that were downloaded, a picture; all tiny."""
    prepare_demo(Path("demo"), clips=4, seed=0)
    shutil.move(folder / "demo" / "clips", folder / "clips")
    Path("data").mkdir()
    Path("ckpts").mkdir()
    Path("small.toml").write_text(SMALL)
    recipe = resolve("stage1_i2v", layers=["small.toml"], sets=["model.cond_embed=true"]).recipe
    with seeded_init(0):
        save_file(build_denoiser(recipe.model).state_dict(), "ckpts/Open_Sora_v2.safetensors")
        flux = recipe.model.model_copy(
            update={"cond_embed": False, "fused_qkv": True, "use_liger_rope": False, "guidance_embed": True}
        )
        save_file(build_denoiser(flux).state_dict(), "ckpts/flux1-dev.safetensors")
        save_file(build_autoencoder(recipe.ae).state_dict(), "demo/vae.safetensors")
    Image.new("RGB", (96, 64), (200, 40, 40)).save("boat.png")


def write_files_and_list_commands() -> Iterator[str]:
    """Write the page's files and yield its commands, in the order of the page."""
    for block in BLOCK.finditer(PAGE):
        title = TITLE.search(block["info"])
        if title is not None:
            Path(title[1]).write_text(block["body"])
        elif block["info"] == "console":
            for line, shown in commands(block["body"]):
                assert shown == "\n" * shown.count("\n"), f"the page shows no output: {line}"
                yield line


def caption(table: Path) -> None:
    """Write a caption for each clip, and keep two of them apart, as the page asks."""
    with table.open() as file:
        rows = [{**row, "text": f"a shape moves, {number}"} for number, row in enumerate(csv.DictReader(file))]
    for path, part in ((table, rows), (table.with_name("held_out.csv"), rows[:2])):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(part)


def arguments(line: str) -> list[str]:
    """Return the words of a command, for small models and one process on each of two machines, with real runs for its RUN."""
    words = [run_folder(word) if word.endswith("/RUN") else word for word in shlex.split(line)[1:]]
    for option, value in (("--nproc", "1"), ("--nnodes", "2"), ("--rdzv", f"localhost:{free_port()}")):
        if option in words:
            words[words.index(option) + 1] = value
    if line.removeprefix("osora ").startswith(LAYERED):
        words += ["--layer", "small.toml", *(["--set", "model.cond_embed=true"] if "examples/" in line else [])]
    return words + (STEPS if words[0] == "sample" else [])


def run_folder(word: str) -> str:
    """Return the newest run below the folder that a word names."""
    runs = [path for path in Path(word).parent.iterdir() if (path / "recipe.lock.toml").is_file()]
    return str(max(runs, key=lambda path: path.stat().st_mtime))


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the program in this process: forty starts would take minutes."""
    monkeypatch.setattr(sys, "argv", words)
    try:
        program.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
