"""`osora config`: what a recipe says and whether it holds, without running anything."""

from typing import ClassVar

import typer

from opensora_cli.lazy_group import LazyGroup, Table

HERE = "opensora_cli.commands"
COMMANDS = {
    "validate": (f"{HERE}.config_validate", "validate"),
    "show": (f"{HERE}.config_show", "show"),
    "explain": (f"{HERE}.config_explain", "explain"),
    "diff": (f"{HERE}.config_diff", "diff"),
    "schema": (f"{HERE}.config_schema", "schema"),
    "import": (f"{HERE}.config_convert", "import_"),
    "export": (f"{HERE}.config_convert", "export"),
    "plan": (f"{HERE}.config_plan", "plan"),
    "migrate": (f"{HERE}.config_migrate", "migrate"),
    "init": (f"{HERE}.config_init", "init"),
}


class ConfigCommands(LazyGroup):
    """The commands of `COMMANDS`."""

    table: ClassVar[Table] = COMMANDS


app = typer.Typer(cls=ConfigCommands, no_args_is_help=True, add_completion=False)


@app.callback()
def config() -> None:
    """Check a recipe, show what it resolves to, explain it, compare it, rewrite it. Nothing is run."""
