"""Options of commands that work in several processes, and starting these."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.resolve import Resolved

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


def start_processes(recipes: Sequence["Resolved"], nproc: int | None, nnodes: int, rdzv: str | None) -> int | None:
    """Start the processes that were asked for and return the job's exit code; None if this process is to do the job."""
    from schemas.checks.parallel import world_size_problem

    if (nnodes > 1) != (rdzv is not None):
        raise UsageError("--nnodes above 1 and --rdzv HOST:PORT go together: the machines have to meet somewhere.")
    if nproc is None and nnodes == 1:
        return None
    if "RANK" in os.environ:
        raise UsageError("--nproc and --nnodes start processes, and torchrun has started them already: leave them out.")
    from opensora_cli.distributed.launch import free_port, launch
    from opensora_cli.distributed.nodes import Nodes, SeveralNodes
    from schemas.recipes import RunRecipe, SampleRecipe

    for recipe in (resolved.recipe for resolved in recipes):
        assert isinstance(recipe, RunRecipe | SampleRecipe)
        if problem := world_size_problem(recipe.parallel, (nproc or 1) * nnodes):
            raise UsageError(f"--nproc {nproc or 1} --nnodes {nnodes}: {problem}")
    port = free_port()
    return launch(nproc or 1, SeveralNodes(nnodes, rdzv, port) if rdzv else Nodes(port))
