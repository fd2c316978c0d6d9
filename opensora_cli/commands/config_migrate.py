"""`osora config migrate`: a recipe file in this version of the language."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.commands.config_arguments import Recipe
from opensora_cli.files import write_text
from opensora_cli.render import print_diagnostics, print_lines, write
from schemas.resolve.migrate import migrate as migrated
from schemas.resolve.packaged import locate
from schemas.resolve.sources import read_file


def migrate(
    file: Recipe,
    in_place: Annotated[bool, typer.Option("--write", help="Rewrite the file instead of printing it.")] = False,
) -> None:
    """Rewrite old keys, and Open-Sora's names, to this version of the language; comments are kept.

    Prints the new file, and on stderr what moved. Exit code 1 if something is left to a person.
    """
    source = read_file(locate(file))
    done = migrated(source)
    if not in_place:
        write(done.text.rstrip("\n"))
    elif done.text != source.text:
        write_text(Path(source.name), done.text)
    stream = sys.stdout if in_place else sys.stderr
    print_lines([("ok", f"{old} -> {new}") for old, new in done.moved], stream)
    print_diagnostics(done.left, sys.stderr)
    if in_place:
        print_lines([("ok", f"{source.name}: {'rewritten' if done.text != source.text else 'up to date'}")])
    raise typer.Exit(1 if done.left else 0)
