"""Everything that knows Rich: colours on a terminal, the same text without them anywhere else."""

import sys
from collections.abc import Iterable
from typing import TextIO

from schemas.errors import OsoraError
from schemas.resolve import Diagnostic, RecipeError

STYLES = {
    "head": "bold red",
    "warning": "bold yellow",
    "source": "",
    "caret": "red",
    "note": "cyan",
    "help": "green",
    "ok": "green",
    "title": "bold",
    "dim": "dim",
    "plain": "",
}
"""Role of a line -> Rich style."""


def print_error(error: OsoraError) -> None:
    """Print an error to stderr: every diagnostic of a bad recipe with its carets, any other message in red."""
    if isinstance(error, RecipeError):
        print_diagnostics(error.diagnostics, sys.stderr)
    else:
        print_lines([("head", str(error))], sys.stderr)


def print_diagnostics(diagnostics: Iterable[Diagnostic], stream: TextIO | None = None) -> None:
    """Print problems the way a compiler does."""
    print_lines((line for diagnostic in diagnostics for line in diagnostic.lines()), stream)


def print_lines(lines: Iterable[tuple[str, str]], stream: TextIO | None = None) -> None:
    """Print (role, line) pairs; Rich is imported only for a terminal, never wraps and reads no markup."""
    stream = stream or sys.stdout
    if not stream.isatty():
        stream.writelines(f"{encodable(line, stream)}\n" for _, line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    for role, line in lines:
        console.print(Text(encodable(line, stream), style=STYLES[role]), soft_wrap=True)


def encodable(text: str, stream: TextIO) -> str:
    """Replace what the stream cannot write, so that a report never fails over a character."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def write(text: str) -> None:
    """Print a document to stdout as it is, for a program to read."""
    sys.stdout.write(encodable(text, sys.stdout) + "\n")
