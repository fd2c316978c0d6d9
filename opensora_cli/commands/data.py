"""`osora data`: the data behind a recipe."""

from typing import ClassVar

import typer

from opensora_cli.lazy_group import LazyGroup, Table


class DataCommands(LazyGroup):
    """The commands of `osora data`."""

    table: ClassVar[Table] = {"check": ("opensora_cli.commands.data_check", "check")}


app = typer.Typer(cls=DataCommands, no_args_is_help=True, add_completion=False)


@app.callback()
def data() -> None:
    """Look at the data that a recipe trains on. Nothing is trained."""
