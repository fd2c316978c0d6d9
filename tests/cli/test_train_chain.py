"""`osora train A B --chain`: stages that start from one another, stopped and gone on with."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from opensora_cli.training import chain
from opensora_cli.training.trainer import Trainer
from schemas.errors import OsoraError
from schemas.resolve import Resolved, resolve
from tests.cli.conftest import Osora

SMALL = """
_base_ = "tiny/train"
kind = "train"
dtype = "fp32"
outputs = "{outputs}"
max_steps = {steps}
[model]
depth = 1
depth_single_blocks = 1
[dataset]
num_workers = 0
[optim]
lr = {lr}
warmup_steps = 0
[checkpoint]
every = 1
[condition]
i2v_head = 0
i2v_loop = 0
i2v_tail = 0
[logging]
tensorboard = false
"""


class PowerCutError(Exception):
    """Stands for the plug being pulled."""


def stages(folder: Path, outputs: str) -> list[Resolved]:
    for name, steps, lr in (("first", 2, 1e-3), ("second", 2, 1e-4)):
        (folder / f"{name}.toml").write_text(SMALL.format(outputs=folder / outputs, steps=steps, lr=lr))
    return [resolve(folder / f"{name}.toml", unsets=["ae.from_pretrained"]) for name in ("first", "second")]


def run(recipes: list[Resolved], resume: str | None = None) -> int:
    return chain.run_chain(recipes, resume=resume, ema=True, dry_run=False, console=Console(quiet=True))


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_chain_goes_on_from_the_stage_that_was_stopped(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    assert run(stages(tmp_path, "whole")) == 0
    (whole,) = (tmp_path / "whole").iterdir()
    second = resolve(whole / "2-second" / "recipe.lock.toml").recipe
    assert second.model.from_pretrained == str(whole / "1-first" / "checkpoints" / "step-00000002" / "ema.safetensors")

    update = Trainer._update

    def cut(self: Trainer, *arguments: object) -> None:
        if self.recipe.optim.lr == 1e-4 and self.progress.update == 1:
            raise PowerCutError
        update(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_update", cut)
    with pytest.raises(PowerCutError):
        run(stages(tmp_path, "broken"))
    (broken,) = (tmp_path / "broken").iterdir()
    first = (broken / "1-first" / "run.json").read_bytes()
    monkeypatch.setattr(Trainer, "_update", update)
    assert run(stages(tmp_path, "broken"), resume="auto") == 0
    assert [path.name for path in (tmp_path / "broken").iterdir()] == [broken.name]
    assert (broken / "1-first" / "run.json").read_bytes() == first, "a finished stage was run again"
    assert losses(broken / "2-second") == losses(whole / "2-second")
    weights = [
        load_file(path / "2-second" / "checkpoints" / "step-00000002" / "model.safetensors") for path in (whole, broken)
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    record = json.loads((broken / "chain.json").read_text())
    assert record["finished"] == {"1-first": "step-00000002", "2-second": "step-00000002"}


@pytest.mark.parametrize(
    ("sets", "ema", "message"),
    [
        ([], True, "stage 1 .* keeps no average"),
        (["model.depth=3"], False, "stage 2 .*the weights do not fit the model(.|\n)*model.depth"),
        (["device=cpu"], False, "stage 1 has device = 'auto', stage 2 has 'cpu'"),
    ],
)
def test_stages_that_do_not_fit_are_refused_before_the_first_starts(sets: list[str], ema: bool, message: str) -> None:
    first = resolve("tiny/train", unsets=["optim.ema_decay"])
    second = resolve("tiny/train", sets=sets)
    with pytest.raises(OsoraError, match=message):
        chain.run_chain([first, second], resume=None, ema=ema, dry_run=False, console=Console(quiet=True))


def test_several_recipes_need_the_option(osora: Osora) -> None:
    done = osora("train", "tiny/train", "tiny/train")
    assert done.returncode == 2
    assert "--chain trains two or more, one after the other" in done.stderr
