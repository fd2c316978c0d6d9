"""`osora train` and `osora vae-train`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from opensora_cli.commands.processes import Nnodes, Nproc, Rdzv, start_processes
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
        if (code := start_processes(stages, *processes)) is not None:
            raise typer.Exit(code)

    from rich.console import Console

    from opensora_cli.training.chain import run_chain
    from opensora_cli.training.job import run_training

    if len(stages) > 1:
        raise typer.Exit(run_chain(stages, resume=resume, ema=ema, dry_run=dry_run, console=Console()))
    raise typer.Exit(run_training(stages[0], resume=resume, dry_run=dry_run, console=Console()))
