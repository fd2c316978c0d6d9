"""The `osora` program: a table of commands, each imported only when it is asked for."""

import sys
from typing import Annotated, Any

import typer

from opensora_cli.lazy_group import ARGUMENTS, LazyGroup
from schemas.errors import OsoraError

COMMANDS: dict[str, tuple[str, str]] = {
    "config": ("opensora_cli.commands.config", "app"),
    "recipes": ("opensora_cli.commands.recipes", "app"),
    "meta": ("opensora_cli.commands.meta", "meta"),
    "shard": ("opensora_cli.commands.shard", "shard"),
    "data": ("opensora_cli.commands.data", "app"),
    "cache": ("opensora_cli.commands.cache", "cache"),
    "train": ("opensora_cli.commands.train", "train"),
    "vae-train": ("opensora_cli.commands.train", "vae_train"),
    "vae-sample": ("opensora_cli.commands.vae", "vae_sample"),
    "vae-stats": ("opensora_cli.commands.vae", "vae_stats"),
    "sample": ("opensora_cli.commands.sample", "sample"),
    "ckpt": ("opensora_cli.commands.ckpt", "app"),
    "demo": ("opensora_cli.commands.demo", "app"),
}
"""name -> module and attribute: a Typer app, or a plain function with typed options."""


class Commands(LazyGroup):
    """The commands of `COMMANDS`."""

    table = COMMANDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments as they were typed, for options whose order counts."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # half of what a command takes to start

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
