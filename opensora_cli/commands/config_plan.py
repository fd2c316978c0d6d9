"""`osora config plan`: what a recipe will cost, without a GPU."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.commands.config_arguments import Recipe
from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_lines, write
from schemas.resolve import resolve

GPU_HELP = "h200, h100, a100-80gb, a100-40gb, l40s, rtx4090, or cpu for this machine."


class PlanFormat(StrEnum):
    """How `plan` reports."""

    rich = "rich"
    json = "json"


def plan(
    file: Recipe,
    world_size: Annotated[int, typer.Option("--world-size", min=1, help="Processes, one GPU each.")] = 1,
    gpu: Annotated[str | None, typer.Option("--gpu", help=GPU_HELP)] = None,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", metavar="GIB", min=0.001, help="Any other GPU, by its memory.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="A table of clips in place of dataset.data_path.", show_default=False)
    ] = None,
    suggest: Annotated[
        Path | None,
        typer.Option("--suggest", help="Write a layer with batch sizes that fit to this file.", show_default=False),
    ] = None,
    format_: Annotated[PlanFormat, typer.Option("--format", help="For people or programs.")] = PlanFormat.rich,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Parameters, FLOPs, memory of one process and clips of every bucket. Exit code 1 if a batch does not fit the GPU."""
    resolved = resolve(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
    require_extra("run", ("torch", "einops", "numpy", "pandas", "pyarrow"))
    from opensora_cli.planning.plan import Target, make_plan
    from opensora_cli.planning.report import plan_json, plan_lines
    from opensora_cli.planning.suggest import suggest as suggest_sizes
    from opensora_cli.planning.suggest import write_layer

    planned = make_plan(resolved.recipe, Target.of(world_size, gpu, gpu_memory), data)
    sizes = suggest_sizes(planned) if suggest is not None else None
    if suggest is not None and sizes is not None:
        write_layer(planned, sizes, suggest)
    if format_ is PlanFormat.json:
        write(json.dumps(plan_json(file, planned), indent=2))
    else:
        print_lines(plan_lines(file, planned))
        if suggest is not None:
            print_lines([("ok", f"batch sizes that fit: {suggest} (lay it over the recipe with --layer {suggest})")])
    raise typer.Exit(1 if planned.too_large and suggest is None else 0)
