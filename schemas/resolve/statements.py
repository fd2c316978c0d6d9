"""A TOML text as the statements that it is made of, each with the comments that belong to it, so that they can be moved.

Joining the pieces gives the text back, byte by byte.
"""

from dataclasses import dataclass, field

from schemas.resolve.keys import Path, read_key, show_part
from schemas.resolve.spans import SpanReader


@dataclass(frozen=True, slots=True)
class WrittenKey:
    """A dotted key in a text: the names of its parts, and the offsets of each."""

    names: Path = ()
    spans: tuple[tuple[int, int], ...] = ()

    def replaced(self, text: str, new: Path) -> str:
        """Return the text with another key; the names at the end that stay are kept as they are written."""
        same = 0
        while same < min(len(new), len(self.names)) and new[-1 - same] == self.names[-1 - same]:
            same += 1
        start, end = self.spans[0][0], self.spans[-1][1]
        kept = [text[self.spans[-same][0] : end]] if same else []
        written = [show_part(str(name)) for name in new[: len(new) - same]]
        return text[:start] + ".".join([*written, *kept]) + text[end:]


@dataclass(slots=True)
class Statement:
    """A `key = value` with the comment lines right above it, from line start to line end; `between` is what stands above.

    `path` is the whole key, its section's included; `key` the key as it is written in `text`.
    """

    path: Path
    between: str
    text: str
    key: "WrittenKey"


@dataclass(slots=True)
class Section:
    """A header with its statements; the first section of a text has neither header nor path."""

    path: Path
    between: str = ""
    text: str = ""
    key: WrittenKey = WrittenKey()
    statements: list[Statement] = field(default_factory=list)


def read_statements(text: str) -> tuple[list[Section], str]:
    """Return the sections of a valid TOML text, and what stands behind the last statement."""
    reader = _StatementReader(text)
    return reader.sections, text[reader.done :]


def join(sections: list[Section], rest: str) -> str:
    """Return the text that sections and their statements make."""
    pieces = []
    for section in sections:
        pieces += [section.between, section.text]
        pieces += [piece for statement in section.statements for piece in (statement.between, statement.text)]
    return "".join(pieces) + rest


class _StatementReader(SpanReader):
    """Cuts the text at the ends of lines, behind each statement's trailing comment."""

    def __init__(self, text: str) -> None:
        self.sections = [Section(())]
        self.done = 0
        super().__init__(text)

    def _header(self, offset: int) -> tuple[Path, int]:
        parts, _ = read_key(self.text, offset + 1 + self.text.startswith("[[", offset))
        path, end = super()._header(offset)
        between, text, start = self._cut(offset, end)
        self.sections.append(Section(path, between, text, _written(parts, start)))
        return path, end

    def _pair(self, table: Path, offset: int) -> int:
        """Record only what stands on its own: an inline table's keys belong to its statement."""
        inside = offset < self._inside
        parts, _ = read_key(self.text, offset)
        if inside:
            return super()._pair(table, offset)
        self._inside = len(self.text)
        end = super()._pair(table, offset)
        self._inside = 0
        between, text, start = self._cut(offset, end)
        path = (*table, *(name for name, _, _ in parts))
        self.sections[-1].statements.append(Statement(path, between, text, _written(parts, start)))
        return end

    _inside = 0
    """Offset up to which keys belong to the statement that is being read."""

    def _cut(self, start: int, end: int) -> tuple[str, str, int]:
        """Return what stands above a statement's own comment lines, the statement with them, and where they start."""
        line_end = self.text.find("\n", end)
        line_end = len(self.text) if line_end < 0 else line_end + 1
        lines = self.text[self.done : start].split("\n")
        above = lines[:-1]  # the last piece is the statement's indentation
        own = 0
        while own < len(above) and above[len(above) - 1 - own].lstrip().startswith("#"):
            own += 1
        if own == len(above) and self.done == 0:
            own = 0  # a comment at the very top speaks of the file
        between = "".join(f"{line}\n" for line in above[: len(above) - own])
        begin = self.done + len(between)
        text = self.text[begin:line_end]
        self.done = line_end
        return between, text if text.endswith("\n") else text + "\n", begin


def _written(parts: list[tuple[str, int, int]], start: int) -> WrittenKey:
    spans = tuple((begin - start, end - start) for _, begin, end in parts)
    return WrittenKey(tuple(name for name, _, _ in parts), spans)
