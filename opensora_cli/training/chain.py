"""Several recipes as one job: each stage starts from what the one before it trained."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from opensora_cli.distributed.launch import end_with_launcher
from opensora_cli.distributed.process import Process, leave, spread, start_process
from opensora_cli.files import write_text
from opensora_cli.sampling.weights import find_weights, newest_checkpoint
from opensora_cli.supported import check_supported
from opensora_cli.training.job import Trainable, make_loader, planned_updates, train_one
from opensora_cli.training.run_folder import new_folder
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.weights import check_fit
from schemas.errors import OsoraError
from schemas.identity import identity
from schemas.recipes import TrainRecipe, VaeTrainRecipe
from schemas.resolve import RecipeError, Resolved, resolve

RECORD = "chain.json"


@dataclass(frozen=True)
class Stage:
    """One recipe of a chain, and the name of its folder in the chain's."""

    number: int
    resolved: Resolved

    @property
    def recipe(self) -> Trainable:
        """The recipe, as its file says it."""
        recipe = self.resolved.recipe
        assert isinstance(recipe, Trainable)
        return recipe

    @property
    def name(self) -> str:
        """Its place and the file it came from."""
        return f"{self.number}-{Path(str(self.resolved.source)).stem}"


class ChainFolder:
    """`<outputs>/<date>-<time>-chain-...`: the locked recipes, one run folder for each, and which stages are done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def recipe(self, number: int) -> Path:
        """Return where the locked recipe of a stage is."""
        return self.path / f"stage-{number}.toml"

    def finished(self) -> dict[str, str]:
        """Return the checkpoint that each finished stage ended with, by the stage's name."""
        try:
            found: dict[str, str] = json.loads((self.path / RECORD).read_text(encoding="utf-8"))["finished"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OsoraError(f"cannot resume {self.path}: {RECORD} cannot be read ({error})") from error
        return found

    def write(self, stages: Sequence[Stage], finished: dict[str, str]) -> None:
        """Record the stages that are done; the rest of the record is for people."""
        record = {"stages": [stage.name for stage in stages], "finished": finished}
        write_text(self.path / RECORD, json.dumps(record, indent=2) + "\n")


def run_chain(resolved: Sequence[Resolved], *, resume: str | None, ema: bool, dry_run: bool, console: Console) -> int:
    """Train recipes one after the other, from the weights of the stage before (averaged ones if `ema`); return the exit code.

    `resume` is None, "auto" or the chain's folder. Everything that can be checked is, before the first stage starts. A stage
    that was stopped stops the chain, with its exit code.
    """
    stages = [Stage(number, one) for number, one in enumerate(resolved, 1)]
    for stage in stages:
        check_supported(stage.recipe)
    check_chain(stages, ema)
    first = stages[0].recipe
    process = start_process(first.device, first.parallel)
    end_with_launcher()
    screen = console if process.is_main else Console(quiet=True)
    for stage in stages:
        planned_updates(stage.recipe, make_loader(stage.recipe, spread(process, stage.recipe.parallel)))
    if dry_run:
        codes = [_train(stage, stage.resolved, process, screen, len(stages), dry_run=True) for stage in stages]
        leave()
        return max(codes)
    own = str(_open(stages, resume, screen).path) if process.is_main else None
    folder = ChainFolder(Path(process.from_main(own) or ""))
    screen.print(f"chain folder: {folder.path}", markup=False, highlight=False, soft_wrap=True)
    code = _run_stages(stages, folder, process, ema, screen)
    leave()
    return code


def _run_stages(stages: Sequence[Stage], folder: ChainFolder, process: Process, ema: bool, console: Console) -> int:
    finished = json.loads(process.from_main(json.dumps(folder.finished()) if process.is_main else None) or "{}")
    before: Path | None = None
    for stage in stages:
        place = folder.path / stage.name
        if stage.name in finished:
            console.print(f"stage {stage.name} is done: {finished[stage.name]}", markup=False, soft_wrap=True)
        else:
            resolved = resolve(folder.recipe(stage.number), kind=stage.recipe.kind, injected=_start(stage, before, ema))
            if code := _train(stage, resolved, process, console, len(stages), place=place):
                return code
            end = newest_checkpoint(place).name if process.is_main else None
            finished[stage.name] = str(process.from_main(end))
            if process.is_main:
                folder.write(stages, finished)
        before = place / "checkpoints" / finished[stage.name]
    return 0


def _train(
    stage: Stage,
    resolved: Resolved,
    process: Process,
    console: Console,
    count: int,
    *,
    place: Path | None = None,
    dry_run: bool = False,
) -> int:
    console.print(f"stage {stage.number} of {count}: {resolved.source}", markup=False, soft_wrap=True)
    code = train_one(resolved, spread(process, stage.recipe.parallel), console, place=place, dry_run=dry_run)
    if process.device.type == "cuda":
        torch.cuda.empty_cache()
    return code


def _start(stage: Stage, before: Path | None, ema: bool) -> dict[str, dict[str, Any]]:
    """Return what the chain lays over a stage's recipe: the weights of the checkpoint `before` it."""
    if before is None:
        return {}
    recipe = stage.recipe
    table = "model" if isinstance(recipe, TrainRecipe) else "ae"
    values: dict[str, Any] = {table: {"from_pretrained": str(find_weights(str(before), "--chain", ema=ema))}}
    if isinstance(recipe, VaeTrainRecipe) and recipe.discriminator is not None:
        adversary = before / "adversary.safetensors"
        if adversary.is_file() and recipe.discriminator.from_pretrained is None:
            values["discriminator"] = {"from_pretrained": str(adversary)}
    return {f"<stage {stage.number - 1} of the chain>": values}


def check_chain(stages: Sequence[Stage], ema: bool) -> None:
    """Raise OsoraError where a stage cannot start from the one before it."""
    for stage, following in pairwise(stages):
        recipe = stage.recipe
        if ema and recipe.optim.ema_decay is None:
            raise OsoraError(
                f"--chain --ema: stage {stage.number} ({stage.resolved.source}) keeps no average: set its optim.ema_decay, "
                "or leave --ema out."
            )
        if recipe.device != following.recipe.device:
            raise OsoraError(
                f"--chain: stage {stage.number} has device = {recipe.device!r}, stage {following.number} has "
                f"{following.recipe.device!r}. All stages run in the same processes: give them one device."
            )
        if isinstance(recipe, TrainRecipe) and recipe.lora is not None:
            raise OsoraError(
                f"--chain: stage {stage.number} trains adapters, and stage {following.number} would start from a whole model. "
                "Run it alone, merge its adapters, and start the chain behind it."
            )
        allowed = following.recipe.model.allow_missing if isinstance(following.recipe, TrainRecipe) else ()
        source = f"--chain: stage {following.number} ({following.resolved.source}) from stage {stage.number}"
        check_fit(
            _without_weights(following.recipe), _without_weights(recipe).state_dict(), source, allow_missing=allowed
        )


def _without_weights(recipe: Trainable) -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = (
            build_denoiser(recipe.model) if isinstance(recipe, TrainRecipe) else build_autoencoder(recipe.ae)
        )
    return module


def _open(stages: Sequence[Stage], resume: str | None, console: Console) -> ChainFolder:
    """Return the chain's folder, new or to go on with, with the recipes as they are now."""
    folder = None
    if resume == "auto":
        folder = _find(stages)
        if folder is None:
            outputs = stages[0].recipe.outputs
            console.print(f"--resume auto: no chain of these recipes below {outputs}, starting a new one", markup=False)
    elif resume is not None:
        folder = ChainFolder(Path(resume))
        if not _same(folder, stages):
            raise OsoraError(
                f"--resume {resume}: no chain of these recipes. Give the folder of one (it has a {RECORD}), or auto."
            )
    if folder is None:
        name = "chain-" + "-".join(Path(str(stage.resolved.source)).stem for stage in stages)
        folder = ChainFolder(new_folder(Path(stages[0].recipe.outputs), name))
        folder.write(stages, {})
    for stage in stages:
        write_text(folder.recipe(stage.number), stage.resolved.lock())
    return folder


def _find(stages: Sequence[Stage]) -> ChainFolder | None:
    """Return the newest chain of the same recipes, or None."""
    records = sorted(Path(stages[0].recipe.outputs).glob(f"*/{RECORD}"), reverse=True)
    folders = (ChainFolder(record.parent) for record in records)
    return next((folder for folder in folders if _same(folder, stages)), None)


def _same(folder: ChainFolder, stages: Sequence[Stage]) -> bool:
    """Whether a chain has as many stages, each of the same recipe."""
    if len(list(folder.path.glob("stage-*.toml"))) != len(stages) or not (folder.path / RECORD).is_file():
        return False
    try:
        others = [resolve(folder.recipe(stage.number)).recipe for stage in stages]
    except RecipeError:  # a chain of another version of osora is not a candidate
        return False
    pairs = zip(others, stages, strict=True)
    return all(other.kind == stage.recipe.kind and identity(other) == identity(stage.recipe) for other, stage in pairs)
