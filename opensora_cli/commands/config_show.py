"""`osora config show`: the recipe after all layers."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from opensora_cli.commands.config_arguments import Recipe
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import write
from schemas.resolve import Event, Resolved, resolve
from schemas.resolve.explain import flat
from schemas.resolve.keys import show_key
from schemas.resolve.nodes import UNSET


class ShowFormat(StrEnum):
    """How `show` writes a recipe."""

    toml = "toml"
    json = "json"


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
        write(resolved.lock(provenance=provenance).rstrip("\n"))
    elif provenance:
        write(json.dumps({"values": resolved.tree(), "provenance": _histories(resolved)}, indent=2))
    else:
        write(json.dumps(resolved.tree(), indent=2))


def _histories(resolved: Resolved) -> dict[str, list[dict[str, Any]]]:
    """Return, for every key, what each layer did to it, oldest first."""
    keys = [show_key(path) for path, value in flat(resolved.tree()).items() if value != {}]
    return {key: [_event(event) for event in resolved.history(key)] for key in keys}


def _event(event: Event) -> dict[str, Any]:
    return {
        "action": event.action,
        "value": None if event.value is UNSET else event.value,
        "file": event.label,
        "line": event.place.line,
        "column": event.place.column,
    }
