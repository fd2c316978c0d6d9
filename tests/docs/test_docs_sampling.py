"""The page about sampling: its example runs, and what it names is there."""

import re
import runpy
from pathlib import Path
from typing import get_args

import av
import pytest
import typer.main

from opensora_cli.commands.sample import sample
from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.sampling.rows import COLUMNS
from opensora_cli.training.draws import seeded_init
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.weights import save_weights
from schemas.condition import HALVES, ConditionName
from schemas.recipes import SampleRecipe
from schemas.resolve import resolve
from schemas.sampling import SamplingConfig
from tests.cli.conftest import REPOSITORY
from tests.docs.console import BLOCK

PAGE = (REPOSITORY / "docs" / "sampling.md").read_text()


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def first_cells(text: str) -> set[str]:
    """The code words in the first column of a section's table."""
    return {
        word
        for line in text.splitlines()
        if line.startswith("|")
        for word in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def test_the_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    prepare_demo(Path("demo"), clips=2, seed=0)
    recipe = resolve("tiny/sample").recipe
    assert isinstance(recipe, SampleRecipe)
    with seeded_init(1):
        model, autoencoder = build_denoiser(recipe.model), build_autoencoder(recipe.ae)
    save_weights(model.state_dict(), Path("demo/denoiser.safetensors"))
    save_weights(autoencoder.state_dict(), Path("demo/vae.safetensors"))
    (example,) = (block["body"] for block in BLOCK.finditer(PAGE) if block["info"] == "python")
    Path("example.py").write_text(example)
    runpy.run_path("example.py")
    assert capsys.readouterr().out.splitlines() == ["torch.Size([3, 9, 64, 64])", "demo/samples/sample-0000.mp4 True"]
    with av.open("moved.mp4") as file:
        assert sum(1 for _ in file.decode(video=0)) == 9
    assert Path("red.gif").is_file()


def test_every_option_and_key_of_the_page_exists() -> None:
    app = typer.Typer()
    app.command()(sample)
    there = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    assert [option for option in re.findall(r"(--[a-z][a-z-]*)", PAGE) if option not in there] == []
    assert first_cells(section("Steps and guidance")) <= SamplingConfig.model_fields.keys()


def test_the_tables_name_every_column_and_every_condition() -> None:
    assert first_cells(section("Prompts")) == set(COLUMNS)
    assert first_cells(section("References")) == set(get_args(ConditionName))
    assert all(f"`{name}`" in PAGE for name in HALVES)
