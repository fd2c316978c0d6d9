"""`osora data check`: is the data what the recipe needs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.commands.config_arguments import Recipe
from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_lines, write
from schemas.errors import OsoraError, UsageError
from schemas.recipes import ClipsRecipe
from schemas.resolve import resolve

LOOKED_FOR = 1000


class CheckFormat(StrEnum):
    """How `check` reports."""

    rich = "rich"
    json = "json"


def check(
    file: Recipe,
    files: Annotated[
        str, typer.Option("--files", metavar="all|N", help="How many of the clips' files to look for.")
    ] = str(LOOKED_FOR),
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Draw the buckets' clips to a PNG.", show_default=False)
    ] = None,
    format_: Annotated[CheckFormat, typer.Option("--format", help="For people or programs.")] = CheckFormat.rich,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Columns, missing files, duplicates, captions, clips of every bucket, and why the rest fits none.

    Exit code 1 if files are missing or no bucket fills a batch.
    """
    resolved = resolve(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
    recipe = resolved.recipe
    if not isinstance(recipe, ClipsRecipe):
        raise OsoraError(
            f"{file}: kind = {recipe.kind!r} has no training data to check. Give a train or vae-train recipe."
        )
    count = _file_count(files)
    require_extra("run", ("torch", "einops", "numpy", "pandas", "pyarrow", "PIL"))
    from rich.console import Console

    from opensora_cli.data.bucket_chart import draw_chart
    from opensora_cli.data.data_check import check_data
    from opensora_cli.data.data_check_report import report_json, report_lines
    from opensora_cli.progress import counted

    with counted("look", Console(stderr=True)) as report_progress:
        report = check_data(
            recipe.dataset,
            recipe.buckets,
            compression=recipe.pixels_per_token,
            seed=recipe.seed,
            files=count,
            report=report_progress,
        )
    if png is not None:
        draw_chart(report.fit.buckets, f"{report.source}: {report.rows} rows, {report.fit.batches} batches", png)
    if format_ is CheckFormat.json:
        write(json.dumps(report_json(report), indent=2))
    else:
        print_lines(report_lines(report))
        if png is not None:
            print_lines([("dim", f"-> {png}")])
    raise typer.Exit(1 if report.problems else 0)


def _file_count(text: str) -> int | None:
    """Return the number of files to look for, None for all. Raises UsageError."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise UsageError(f"--files {text}: all, or the number of files to look for, drawn by the recipe's seed.")
    return int(text)
