"""The `osora` program: a table of commands, each imported only when it is asked for."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from opensora_cli.overrides import ARGUMENTS
from schemas.errors import OsoraError

COMMANDS: dict[str, tuple[str, str]] = {
    "config": ("opensora_cli.commands.config", "app"),
    "recipes": ("opensora_cli.commands.recipes", "app"),
    "meta": ("opensora_cli.commands.meta", "meta"),
    "train": ("opensora_cli.commands.train", "train"),
    "vae-train": ("opensora_cli.commands.train", "vae_train"),
    "sample": ("opensora_cli.commands.sample", "sample"),
    "demo": ("opensora_cli.commands.demo", "app"),
}
"""name -> module and attribute: a Typer app, or a plain function with typed options."""


class LazyGroup(TyperGroup):
    """A group whose commands live in `COMMANDS`; a command's module is imported when it runs or its help is shown."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return one command; for an unknown name, load all, so that the close ones can be suggested."""
        for name in [cmd_name] if cmd_name in COMMANDS else self.list_commands(ctx):
            if name not in self.commands:
                self.commands[name] = _load(name)
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments as they were typed, for options whose order counts."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def _load(name: str) -> Any:
    module, attribute = COMMANDS[name]
    target = getattr(import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False)
        target.command(name)(function)
    command = get_command(target)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"osora {version('osora')}\n")
        raise typer.Exit


@app.callback()
def osora(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Typed recipes for video diffusion: checked before a GPU is rented, then trained and sampled."""


def main() -> None:
    """Run the program; what a user can mend becomes a message and an exit code, everything else is a bug and shows."""
    try:
        app()
    except OsoraError as error:
        from opensora_cli.render import print_error

        print_error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
