"""`osora config`: what a recipe says and whether it holds, without running anything."""

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import encodable, print_diagnostics, print_lines
from opensora_cli.reports import Finding, as_github, as_json
from schemas.resolve import RecipeError, Resolved, resolve
from schemas.resolve.keys import Path, show_key
from schemas.resolve.nodes import UNSET

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check a recipe, and show what it resolves to.")


class ReportFormat(StrEnum):
    """How `validate` reports."""

    rich = "rich"
    json = "json"
    github = "github"


class ShowFormat(StrEnum):
    """How `show` writes a recipe."""

    toml = "toml"
    json = "json"


Recipes = Annotated[list[str], typer.Argument(help="Recipe files, or names of packaged recipes.", show_default=False)]
Recipe = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged one.", show_default=False)]


@app.command()
def validate(
    files: Recipes,
    format_: Annotated[
        ReportFormat, typer.Option("--format", help="For people, programs, or GitHub.")
    ] = ReportFormat.rich,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Check recipes: every problem of every file at once. Exit code 1 if there is any."""
    findings: list[Finding] = []
    for file in files:
        try:
            resolved = resolve(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
        except RecipeError as error:
            findings += [(file, diagnostic) for diagnostic in error.diagnostics]
            if format_ is ReportFormat.rich:
                print_diagnostics(error.diagnostics)
                print_lines([("plain", f"{file}: {_count(len(error.diagnostics))}")])
        else:
            if format_ is ReportFormat.rich:
                print_lines([("ok", f"{file}: ok ({resolved.recipe.kind})")])
    if format_ is ReportFormat.json:
        _write(as_json(findings))
    elif format_ is ReportFormat.github:
        print_lines(("plain", line) for line in as_github(findings))
    raise typer.Exit(1 if findings else 0)


@app.command()
def show(
    file: Recipe,
    format_: Annotated[ShowFormat, typer.Option("--format", help="TOML validates again.")] = ShowFormat.toml,
    provenance: Annotated[bool, typer.Option("--provenance", help="Say which layer set each key, and where.")] = False,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Print a recipe with every layer applied: all keys, all values, no bases."""
    resolved = resolve(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
    if format_ is ShowFormat.toml:
        _write(resolved.lock(provenance=provenance).rstrip("\n"))
    elif provenance:
        _write(json.dumps({"values": resolved.tree(), "provenance": _histories(resolved)}, indent=2))
    else:
        _write(json.dumps(resolved.tree(), indent=2))


def _write(text: str) -> None:
    sys.stdout.write(encodable(text, sys.stdout) + "\n")


def _count(problems: int) -> str:
    return "1 problem" if problems == 1 else f"{problems} problems"


def _histories(resolved: Resolved) -> dict[str, list[dict[str, Any]]]:
    """Return, for every key, what each layer did to it, oldest first."""
    histories = {}
    for path in _keys(resolved.tree(), ()):
        key = show_key(path)
        histories[key] = [
            {
                "action": event.action,
                "value": None if event.value is UNSET else event.value,
                "file": event.label,
                "line": event.place.line,
                "column": event.place.column,
            }
            for event in resolved.history(key)
        ]
    return histories


def _keys(values: dict[str, Any], path: Path) -> list[Path]:
    keys: list[Path] = []
    for name, value in values.items():
        keys += _keys(value, (*path, name)) if isinstance(value, dict) else [(*path, name)]
    return keys
