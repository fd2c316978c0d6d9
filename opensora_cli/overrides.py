"""The options that every command with a recipe has: `--layer`, `--set`, `--unset`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.lazy_group import ARGUMENTS
from schemas.resolve.overrides import Unsetting


def in_order(context: typer.Context, sets: list[str] | None) -> list[str] | None:
    """Return the `--set`s with the `--unset`s between them, in the order of the command line.

    The resolver knows an `Unsetting` here and the same key among the `--unset`s for one and the same.
    """
    found: list[str] = []
    arguments: Sequence[str] = context.meta.get(ARGUMENTS, ())
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument == "--":
            break
        if name in ("--set", "--unset"):
            text = value if equals else "".join(arguments[index + 1 : index + 2])
            found.append(text if name == "--set" else Unsetting(text))
    given = [text for text in found if not isinstance(text, Unsetting)]
    return found if given == (sets or []) else sets


Layers = Annotated[list[Path] | None, typer.Option("--layer", help="A recipe file laid over the recipe; repeatable.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", callback=in_order, metavar="KEY=VALUE", help="A value over everything else; repeatable."),
]
Unsets = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="KEY", help="A key back to the schema's default; repeatable."),
]
