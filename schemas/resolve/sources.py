"""Where values come from: a TOML file, an option of the command line, or a part of the program with a label."""

import os
import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from schemas.resolve.diagnostics import Diagnostic, Place, RecipeError
from schemas.resolve.keys import Path

if TYPE_CHECKING:
    from schemas.resolve.spans import Span

Part = Literal["key", "value"]
Asker = Callable[[], Place]
"""Tells on demand which place asked for a file."""
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
MEMO_CHARACTERS = 65_536
"""Longer texts are parsed anew each time instead of being kept."""
DECLARED = re.compile(r"\('(.*)',?\)")
"""tomllib shows a key as a Python tuple."""
WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Source(Protocol):
    """One layer's origin. `place` is lazy: positions are computed only when somebody asks."""

    @property
    def name(self) -> str:
        """What a person calls it: a file's path, `<command line>`, `<checkpoint>`."""
        ...

    @property
    def values(self) -> Mapping[str, Any]:
        """What it says, as plain TOML values."""
        ...

    def place(self, path: Path, part: Part = "key") -> Place:
        """Return where it speaks of `path`, or of the nearest table around it."""
        ...


class LabelSource:
    """Values that no file holds: the schema's defaults, a checkpoint, the planner."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = values

    def place(self, path: Path, part: Part = "key") -> Place:
        """Return the label."""
        return Place(self.name)


class OptionSource:
    """One `--set KEY=VALUE` or `--unset KEY`; its columns count within the option's own text."""

    name = "<command line>"

    def __init__(self, text: str, values: Mapping[str, Any], key: tuple[int, int], value: tuple[int, int]) -> None:
        self.text = text
        self.values = values
        self._spans = {"key": key, "value": value}

    def place(self, path: Path, part: Part = "key") -> Place:
        """Return the option's text, pointing at its key or its value."""
        start, end = self._spans[part]
        return Place(self.name, None, start + 1, self.text, max(1, end - start))


class FileSource:
    """A TOML file. `real`, its device and number there, tells two spellings of one file apart from two files."""

    def __init__(self, name: str, text: str, values: dict[str, Any], real: tuple[int, int]) -> None:
        self.name = name
        self.text = text
        self.values = values
        self.real = real
        self.folder = os.path.dirname(name)  # noqa: PTH120 - keeps "./x" and "" as the user wrote them

    @cached_property
    def _spans(self) -> "dict[Path, Span]":
        from schemas.resolve.spans import SpanReader  # a recipe that is fine needs no places

        return SpanReader(self.text).spans

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def span(self, path: Path) -> "Span | None":
        """Return the offsets of a key and its value in the text, or None where it is not there."""
        return self._spans.get(path)

    def place(self, path: Path, part: Part = "key") -> Place:
        """Return line and column of a key or its value; of the nearest table around it if it is not there."""
        for length in range(len(path), 0, -1):
            span = self._spans.get(path[:length])
            if span is not None:
                inside = part == "value" and length == len(path)
                return self._at(*(span[2:] if inside else span[:2]))
        return self._at(0, 0)

    def _at(self, start: int, end: int) -> Place:
        line = bisect_right(self._line_starts, start)
        begin = self._line_starts[line - 1]
        end_of_line = self._line_starts[line] - 1 if line < len(self._line_starts) else len(self.text)
        source = self.text[begin:end_of_line]
        return Place(self.name, line, start - begin + 1, source, max(1, min(end, begin + len(source)) - start))


def read_file(name: str, asked: Asker | None = None) -> FileSource:
    """Read a recipe file.

    `asked` is the place that asked for it, shown beside the problem. Raises RecipeError for what cannot be read:
    a missing file, a folder, a loop of links, bytes that are not UTF-8, text that is not TOML.
    """
    data, real = _read_bytes(name, asked)
    text = _decode(name, data, asked)
    if "\0" in text:
        place = Place(name, text.count("\n", 0, text.index("\0")) + 1)
        raise RecipeError([Diagnostic("OSR012", "a NUL byte stands in the text.", place, help="Is it a text file?")])
    try:
        values = parsed(text) if len(text) <= MEMO_CHARACTERS else tomllib.loads(text)
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        raise RecipeError([_syntax_problem(name, text, error)]) from None
    source = FileSource(name, text, values, real)
    reject_extremes(source)
    return source


@lru_cache(maxsize=256)
def parsed(text: str) -> dict[str, Any]:
    """Parse a text once: bases are shared by many recipes, and one recipe is resolved many times. Callers change nothing."""
    return tomllib.loads(text)


def reject_extremes(source: Source) -> None:
    """Raise RecipeError for nesting deeper than MAX_DEPTH and for integers beyond TOML's 64 bits."""
    if not _has_extremes(source.values):
        return
    level: list[tuple[Path, Any]] = [((), source.values)]
    problems = []
    for _ in range(MAX_DEPTH):
        level = [child for path, value in level for child in _children(path, value)]
        problems += [
            _huge(source, path) for path, value in level if type(value) is int and not -(2**63) <= value < 2**63
        ]
    if level:
        raise _too_deep(source.name)
    if problems:
        raise RecipeError(problems)


def _has_extremes(values: Mapping[str, Any]) -> bool:
    """Whether a closer look is needed; nearly every file is fine, and paths cost time."""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            for child in value.values() if isinstance(value, dict) else value:
                if isinstance(child, (dict, list)):
                    inner.append(child)
                elif type(child) is int and not -(2**63) <= child < 2**63:
                    return True
        if not inner:
            return False
        level = inner
    return True


def _children(path: Path, value: Any) -> list[tuple[Path, Any]]:
    if isinstance(value, dict):
        return [((*path, key), child) for key, child in value.items()]
    if isinstance(value, list):
        return [((*path, index), child) for index, child in enumerate(value)]
    return []


def _huge(source: Source, path: Path) -> Diagnostic:
    return Diagnostic(
        "OSR010", "an integer does not fit into 64 bits.", source.place(path, "value"), help="Did an exponent get lost?"
    )


def _too_deep(name: str) -> RecipeError:
    message = f"tables or arrays are nested more than {MAX_DEPTH} deep."
    return RecipeError([Diagnostic("OSR010", message, Place(name), help="No recipe needs more than five levels.")])


def _read_bytes(name: str, asked: Asker | None) -> tuple[bytes, tuple[int, int]]:
    """Return what a file holds, and its device and number there."""
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - pathlib refuses some of the names that are to be diagnosed
            status = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise _unreadable(name, "is a folder, not a recipe file", asked) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(name, f"cannot be read: {reason}", asked) from None
    if len(data) > MAX_BYTES:
        raise _unreadable(name, f"is larger than {MAX_BYTES // 2**20} MiB; is it a recipe?", asked)
    return data, (status.st_dev, status.st_ino)


def _unreadable(name: str, what: str, asked: Asker | None) -> RecipeError:
    shown = name.encode("unicode_escape").decode("ascii")
    message, place = f"`{shown}` {what}.", Place(shown) if asked is None else asked()
    return RecipeError(
        [Diagnostic("OSR011", message, place, help="Name a TOML file, or a recipe from `osora recipes list`.")]
    )


def _decode(name: str, data: bytes, asked: Asker | None) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8", "replace")) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8, which TOML files are written in."
        diagnostic = Diagnostic(
            "OSR012", message, Place(name, line, column), asked and asked(), "asked for by", "Save the file as UTF-8."
        )
        raise RecipeError([diagnostic]) from None


def _syntax_problem(name: str, text: str, error: ValueError) -> Diagnostic:
    """Turn tomllib's message into a diagnostic, with advice on the slips that people coming from Python or YAML make."""
    match = WHERE.search(str(error))
    if match is None:  # an integer of more than 4300 digits: Python stops before it is read
        return Diagnostic(
            "OSR010", "an integer does not fit into 64 bits.", Place(name), help="Did an exponent get lost?"
        )
    lines = text.split("\n")
    line = int(match[1]) if match[1] else len(lines)
    source = lines[line - 1] if line <= len(lines) else ""
    column = int(match[2]) if match[2] else len(source) + 1
    place = Place(name, line, column, source)
    message = DECLARED.sub(lambda found: f"`{found[1]}`", str(error)[: match.start()])
    return Diagnostic(
        "OSR012",
        f"not TOML: {message[:1].lower()}{message[1:]}.",
        place,
        help=_syntax_help(message, source[column - 1 :]),
    )


def _syntax_help(message: str, rest: str) -> str | None:
    word = rest.split("#")[0].strip()
    if "overwrite" in message or "twice" in message or "redefine" in message.lower():
        return "A key or table is given only once in a file."
    if word in {"True", "False"}:
        return f"TOML writes {word.lower()}."
    if word.lower() in {"none", "null"}:
        return 'TOML has no null: leave the key out, or un-set an inherited one with `_delete_ = ["key"]`.'
    if "Invalid value" in message and re.fullmatch(r"[A-Za-z_./~][\w./~-]*", word):
        return f'Text needs quotes: "{word}".'
    return None
