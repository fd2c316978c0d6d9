"""`osora train` and `osora vae-train`."""

import os
import sys
from typing import Annotated

import typer

from opensora_cli.commands.processes import Nnodes, Nproc, Rdzv, start_processes
from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_diagnostics

Recipe = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged one.", show_default=False)]
Resume = Annotated[
    str | None,
    typer.Option(
        help="Continue a run: auto takes the newest of the same recipe, or give its folder.", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check recipe, data and device, print the plan, stop.")]


def train(
    recipe: Recipe,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    resume: Resume = None,
    nproc: Nproc = None,
    nnodes: Nnodes = 1,
    rdzv: Rdzv = None,
    dry_run: DryRun = False,
) -> None:
    """Train a denoiser."""
    _run("train", recipe, layer, set_, unset, resume, dry_run, (nproc, nnodes, rdzv))


def vae_train(
    recipe: Recipe,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    resume: Resume = None,
    nproc: Nproc = None,
    nnodes: Nnodes = 1,
    rdzv: Rdzv = None,
    dry_run: DryRun = False,
) -> None:
    """Train an autoencoder."""
    _run("vae-train", recipe, layer, set_, unset, resume, dry_run, (nproc, nnodes, rdzv))


def _run(
    kind: str,
    recipe: str,
    layers: Layers,
    sets: Sets,
    unsets: Unsets,
    resume: str | None,
    dry_run: bool,
    spread: tuple[int | None, int, str | None],
) -> None:
    from opensora_cli.distributed.launch import launched_by_osora
    from opensora_cli.distributed.place import find_place
    from schemas.resolve import resolve

    resolved = resolve(recipe, layers=layers or (), sets=sets or (), unsets=unsets or (), kind=kind)
    place = find_place(os.environ)
    if not launched_by_osora():
        if place is None or place.rank == 0:
            print_diagnostics(resolved.warnings, sys.stderr)
        require_extra("run")
        if (code := start_processes(resolved, *spread)) is not None:
            raise typer.Exit(code)

    from rich.console import Console

    from opensora_cli.training.job import run_training

    raise typer.Exit(run_training(resolved, resume=resume, dry_run=dry_run, console=Console()))
