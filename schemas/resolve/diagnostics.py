"""What can be wrong with a recipe, where, and how it is mended; rendered as plain text the way compilers do."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from schemas.errors import OsoraError

INLINE_HELP = 110
"""Message and help together up to this long share the first line."""
EXCERPT = 100
"""Characters of a source line that are shown around the caret."""


class Place(NamedTuple):
    """A position that a person can go to: line and column count from 1; a label such as `<command line>` has no line."""

    file: str
    line: int | None = None
    column: int | None = None
    source: str | None = None
    width: int = 1

    def __str__(self) -> str:
        parts = [self.file, self.line, self.column if self.line is not None else None]
        return ":".join(str(part) for part in parts if part is not None)

    def excerpt(self) -> tuple[str, str] | None:
        """Return the source line and the line of carets below it, or None where there is no source."""
        if self.source is None or self.column is None:
            return None
        start = max(0, self.column - 1 - EXCERPT // 2) if len(self.source) > EXCERPT else 0
        shown = _clean(self.source[start : start + EXCERPT])
        before = shown[: self.column - 1 - start]
        marked = shown[len(before) : len(before) + self.width]
        return shown, " " * _columns(before) + "^" * max(1, _columns(marked))


class Diagnostic(NamedTuple):
    """One problem: a code, a message, its place, the other place involved with what it did, and the way out."""

    code: str
    message: str
    place: Place
    second: Place | None = None
    second_note: str | None = None
    help: str | None = None
    severity: Literal["error", "warning"] = "error"

    def text(self) -> str:
        """Return the problem as plain text: headline, source line with carets, second place, help."""
        return "\n".join(line for _, line in self.lines())

    def lines(self) -> Iterable[tuple[str, str]]:
        """Yield (role, line); the role (head, warning, source, caret, note, help) lets a terminal colour the line."""
        inline = self.help is not None and len(self.message) + len(self.help) <= INLINE_HELP and "\n" not in self.help
        word = "warning: " if self.severity == "warning" else ""
        yield (
            self._role,
            _clean(f"{self.place}  {self.code} {word}{self.message}" + (f" {self.help}" if inline else "")),
        )
        yield from _snippet(self.place)
        if self.second is not None:
            yield "note", _clean(f"  {self.second_note or 'see also'}: {self.second}")
            yield from _snippet(self.second)
        if self.help is not None and not inline:
            for index, line in enumerate(self.help.split("\n")):
                yield "help", _clean(f"  {'= help:' if index == 0 else '       '} {line}")

    @property
    def _role(self) -> str:
        return "head" if self.severity == "error" else "warning"

    def as_dict(self) -> dict[str, Any]:
        """Return the problem as plain data, for machine-readable reports."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "place": _place_dict(self.place),
            "second_place": None if self.second is None else {**_place_dict(self.second), "note": self.second_note},
            "help": self.help,
        }


class RecipeError(OsoraError):
    """A recipe is bad; carries every problem found, and reads as all of them."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(diagnostic.text() for diagnostic in self.diagnostics))


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return each problem once, file by file in the order of mention, from the top of a file to its end."""
    unique = list(dict.fromkeys(diagnostics))
    files = list(dict.fromkeys(diagnostic.place.file for diagnostic in unique))
    return sorted(unique, key=lambda each: (files.index(each.place.file), each.place.line or 0, each.place.column or 0))


def _snippet(place: Place) -> Iterable[tuple[str, str]]:
    excerpt = place.excerpt()
    if excerpt is None:
        return
    margin = "" if place.line is None else str(place.line)
    yield "source", f"  {margin:>5} | {excerpt[0]}"
    yield "caret", f"  {'':>5} | {excerpt[1]}"


def _place_dict(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column}


def _printable(char: str) -> str:
    """Keep one character a column: tabs become a space, and what could steer a terminal becomes a mark."""
    return " " if char == "\t" else char if char.isprintable() else "\N{REPLACEMENT CHARACTER}"


def _clean(text: str) -> str:
    return text if text.isprintable() else "".join(_printable(char) for char in text)


def _columns(text: str) -> int:
    import unicodedata  # only for a problem that is shown with its line

    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text if not unicodedata.combining(char)
    )
