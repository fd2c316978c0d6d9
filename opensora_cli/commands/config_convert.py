"""`osora config import` and `osora config export`: recipes from and to Open-Sora's own configs."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.commands.config_arguments import Recipe
from opensora_cli.files import write_text
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_lines, write
from schemas.checks import run_checks
from schemas.errors import UsageError
from schemas.open_sora import export_file, import_config, read_config
from schemas.recipes import RECIPES


class Target(StrEnum):
    """Whose keys an export has."""

    open_sora = "open-sora"


Out = Annotated[Path | None, typer.Option("--out", help="A new file; printed if left out.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]


def import_(
    file: Annotated[
        Path, typer.Argument(help="An Open-Sora config: .py, or .json with the same keys.", show_default=False)
    ],
    out: Out = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="train, vae-train, sample, ... where the keys do not tell.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn an Open-Sora config into a recipe. The file is read, never run; what has no counterpart is listed with a reason."""
    if kind is not None and kind not in RECIPES:
        raise UsageError(f"--kind {kind}: must be one of {', '.join(RECIPES)}.")
    result = import_config(read_config(file), kind)
    _deliver(result.text(str(file)), out, overwrite)
    notes = [f"{leftover.place}: not taken over: {leftover}" for leftover in result.leftovers]
    notes += [f"the recipe breaks {found.code}: {found.message} {found.help}" for found in run_checks(result.recipe)]
    print_lines((("note", f"note: {line}") for line in notes), sys.stderr)


def export(
    file: Recipe,
    to: Annotated[Target, typer.Option("--to", help="Whose key names to use.")] = Target.open_sora,
    out: Out = None,
    overwrite: Overwrite = False,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Write a recipe as JSON under Open-Sora's own keys; of a layer, what it adds. What they cannot say is listed."""
    assert to is Target.open_sora, "the one target there is"
    result = export_file(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
    _deliver(json.dumps(result.config, indent=2, sort_keys=True) + "\n", out, overwrite)
    notes = [f"{key} is not in the export: {reason}." for key, reason in result.lost.items()]
    print_lines((("note", f"note: {line}") for line in notes), sys.stderr)


def _deliver(text: str, out: Path | None, overwrite: bool) -> None:
    if out is None:
        write(text.rstrip("\n"))
        return
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists. Give another name, or --overwrite.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print_lines([("ok", f"wrote {out}")])
