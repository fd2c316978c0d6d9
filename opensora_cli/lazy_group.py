"""Groups of commands that import a command's module only when it runs or its help is shown."""

import gc
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

Table = Mapping[str, tuple[str, str]]
"""name -> module and attribute: a Typer app, or a plain function with typed options."""
ARGUMENTS = "osora.arguments"
"""Where the root command leaves its arguments for options whose order counts: in the context's `meta`."""


class LazyGroup(TyperGroup):
    """A group whose commands live in `table`, which a subclass gives."""

    table: ClassVar[Table] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the table's order."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return one command; for an unknown name, load all, so that the close ones can be suggested."""
        for name in [cmd_name] if cmd_name in self.table else self.list_commands(ctx):
            if name not in self.commands:
                self.commands[name] = _load(name, *self.table[name])
        return self.commands.get(cmd_name)


def _load(name: str, module: str, attribute: str) -> Any:
    target = getattr(_imported(module), attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False)
        target.command(name)(function)
    command = get_command(target)
    command.name = name
    return command


def _imported(module: str) -> ModuleType:
    """Import a module with the garbage collector at rest, and exempt what is there from it for good.

    An import makes many thousand objects that all stay: collecting among them, and once more when the process ends,
    finds nothing and takes a sixth of the time of a short command.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return import_module(module)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
