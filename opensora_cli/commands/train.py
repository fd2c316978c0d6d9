"""`osora train` and `osora vae-train`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_diagnostics
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.resolve import Resolved

Recipes = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE...",
        help="A recipe file, or the name of a packaged one; several with --chain.",
        show_default=False,
    ),
]
Chain = Annotated[
    bool, typer.Option("--chain", help="Train the recipes one after the other, each from the weights of the last.")
]
Ema = Annotated[bool, typer.Option("--ema", help="With --chain: hand on the averaged weights.")]
Resume = Annotated[
    str | None,
    typer.Option(
        help="Continue a run: auto takes the newest of the same recipe, or give its folder.", show_default=False
    ),
]
Nproc = Annotated[
    int | None, typer.Option(help="Processes on this machine, one GPU each; or start osora by torchrun or srun.", min=1)
]
Nnodes = Annotated[int, typer.Option(help="Machines; start the same command on each.", min=1)]
Rdzv = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Where several machines meet: an address of one of them.", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check recipe, data and device, print the plan, stop.")]


def train(
    recipe: Recipes,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    resume: Resume = None,
    chain: Chain = False,
    ema: Ema = False,
    nproc: Nproc = None,
    nnodes: Nnodes = 1,
    rdzv: Rdzv = None,
    dry_run: DryRun = False,
) -> None:
    """Train a denoiser."""
    resolved = _resolved("train", recipe, layer, set_, unset, chain, ema)
    _run(resolved, resume, ema, dry_run, (nproc, nnodes, rdzv))


def vae_train(
    recipe: Recipes,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    resume: Resume = None,
    chain: Chain = False,
    ema: Ema = False,
    nproc: Nproc = None,
    nnodes: Nnodes = 1,
    rdzv: Rdzv = None,
    dry_run: DryRun = False,
) -> None:
    """Train an autoencoder."""
    resolved = _resolved("vae-train", recipe, layer, set_, unset, chain, ema)
    _run(resolved, resume, ema, dry_run, (nproc, nnodes, rdzv))


def _resolved(
    kind: str, recipes: list[str], layers: Layers, sets: Sets, unsets: Unsets, chain: bool, ema: bool
) -> list["Resolved"]:
    """Resolve every recipe, each with the same layers and values over it, before anything starts."""
    from schemas.resolve import resolve

    if chain != (len(recipes) > 1):
        raise UsageError(f"{len(recipes)} recipe(s): --chain trains two or more, one after the other.")
    if ema and not chain:
        raise UsageError("--ema says which weights the stages of a --chain hand on: leave it out.")
    return [resolve(recipe, layers=layers or (), sets=sets or (), unsets=unsets or (), kind=kind) for recipe in recipes]


def _run(
    stages: list["Resolved"],
    resume: str | None,
    ema: bool,
    dry_run: bool,
    processes: tuple[int | None, int, str | None],
) -> None:
    from opensora_cli.distributed.launch import launched_by_osora
    from opensora_cli.distributed.place import find_place

    place = find_place(os.environ)
    if not launched_by_osora():
        if place is None or place.rank == 0:
            for resolved in stages:
                print_diagnostics(resolved.warnings, sys.stderr)
        require_extra("run")
        if (code := _launch(stages, *processes)) is not None:
            raise typer.Exit(code)

    from rich.console import Console

    from opensora_cli.training.chain import run_chain
    from opensora_cli.training.job import run_training

    if len(stages) > 1:
        raise typer.Exit(run_chain(stages, resume=resume, ema=ema, dry_run=dry_run, console=Console()))
    raise typer.Exit(run_training(stages[0], resume=resume, dry_run=dry_run, console=Console()))


def _launch(stages: list["Resolved"], nproc: int | None, nnodes: int, rdzv: str | None) -> int | None:
    """Start the processes that were asked for and return the job's exit code; None if this process is to do the job."""
    from schemas.checks.parallel import world_size_problem
    from schemas.recipes import RunRecipe

    if (nnodes > 1) != (rdzv is not None):
        raise UsageError("--nnodes above 1 and --rdzv HOST:PORT go together: the machines have to meet somewhere.")
    if nproc is None and nnodes == 1:
        return None
    if "RANK" in os.environ:
        raise UsageError("--nproc and --nnodes start processes, and torchrun has started them already: leave them out.")
    from opensora_cli.distributed.launch import free_port, launch
    from opensora_cli.distributed.nodes import Nodes, SeveralNodes

    for resolved in stages:
        recipe = resolved.recipe
        assert isinstance(recipe, RunRecipe)
        if problem := world_size_problem(recipe.parallel, (nproc or 1) * nnodes):
            raise UsageError(f"--nproc {nproc or 1} --nnodes {nnodes}: {problem}")
    port = free_port()
    return launch(nproc or 1, SeveralNodes(nnodes, rdzv, port) if rdzv else Nodes(port))
