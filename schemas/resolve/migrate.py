"""Rewriting a recipe file from an older version of the language, or from Open-Sora's key names; comments are kept.

Statements move as they are written: only their keys change, and the section they stand in.
"""

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from schemas.recipes import RECIPES
from schemas.resolve.diagnostics import Diagnostic, Place
from schemas.resolve.fields import look_up
from schemas.resolve.keys import KeySyntaxError, Path, parse_key, show_key, show_part
from schemas.resolve.meaning import meaning_of
from schemas.resolve.nodes import UNSET
from schemas.resolve.renames import VERSION, renamed
from schemas.resolve.sources import FileSource
from schemas.resolve.statements import Section, Statement, WrittenKey, join, read_statements

REFERENCE = re.compile(r"(?<!\$)\$\{([^{}:]+)\}")


@dataclass(frozen=True, slots=True)
class Migration:
    """What became of a file: its new text, the keys that moved, and what is left to a person, each with its place."""

    text: str
    moved: tuple[tuple[str, str], ...]
    left: tuple[Diagnostic, ...]


def migrate(file: FileSource) -> Migration:
    """Return a recipe file in this version of the language; a file that is up to date comes back as it is."""
    return _Job(file).run()


@dataclass(slots=True)
class _Job:
    file: FileSource
    moved: dict[str, str] = field(default_factory=dict)
    left: list[Diagnostic] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def run(self) -> Migration:
        text = self.file.text
        self.sections, rest = read_statements(text if text.endswith("\n") or not text else text + "\n")
        for section in self.sections[1:]:
            self._header(section)
        for section in list(self.sections):
            self._statements(section)
        self._version()
        written = self._references(join(self.sections, rest))
        try:
            tomllib.loads(written)
        except tomllib.TOMLDecodeError as error:
            message = f"the old keys do not go together in their new tables: {str(error).lower()}."
            hint = "Move them by hand; `osora config validate` names the new place of each."
            return Migration(text, (), (*self.left, Diagnostic("OSR001", message, Place(self.file.name), help=hint)))
        return Migration(written if self.moved or self._old() else text, tuple(self.moved.items()), tuple(self.left))

    def _header(self, section: Section) -> None:
        """Rename a section in place; `[bucket_config."256px"]` goes the way of `[bucket_config]`."""
        new = self._new(section.path)
        if new is not None and not any(isinstance(part, int) for part in section.path):
            section.text = section.key.replaced(section.text, new)
            self.moved[show_key(section.path)] = show_key(new)

    def _statements(self, section: Section) -> None:
        kept: list[Statement] = []
        between = ""
        for statement in section.statements:
            new = self._new(statement.path)
            statement.between, between = _stacked(between, statement.between), ""
            self._check_directive(statement)
            table = self._new(section.path) or section.path
            if new is None or self._taken(statement, new):
                kept.append(statement)
            elif parts := self._opened(statement):
                for part in parts:
                    self._move(part, (*new, part.path[-1]))
            elif len(new) == 1 or (table and new[: len(table)] == table):
                kept.append(_with_key(statement, new[len(table) :], new))
                if section.path == () or self._new(section.path) is None:
                    self.moved[show_key(statement.path)] = show_key(new)
            else:
                between = statement.between  # what stood above the comments stays where it was
                self._move(statement, new)
        emptied = bool(section.statements) and not kept and section.path
        section.statements = kept
        if emptied:
            section.text = ""
        self._carry(section, between)

    def _opened(self, statement: Statement) -> list[Statement]:
        """Return one statement a key of an inline table, so that others may join it where it goes; nothing for the rest."""
        values = look_up(self.file.values, statement.path)
        whole = self.file.span(statement.path)
        spans = [self.file.span((*statement.path, name)) for name in values] if isinstance(values, dict) else []
        if not spans or whole is None or any(span is None or span.key_start == span.value_start for span in spans):
            return []
        start = whole.key_start - statement.key.spans[-1][0]
        above = statement.text[: statement.key.spans[0][0]]
        behind = statement.text[whole.value_end - start :]
        parts = []
        for name, span in zip(values, spans, strict=True):
            if span is not None:
                text = f"{above}{show_part(name)} = {self.file.text[span.value_start : span.value_end]}\n"
                key = WrittenKey((name,), ((len(above), len(above) + len(show_part(name))),))
                parts.append(Statement((*statement.path, name), "", text, key))
                above = ""
        parts[-1].text = parts[-1].text.rstrip("\n") + behind
        return parts

    def _carry(self, section: Section, between: str) -> None:
        """Hand what stood above a moved statement to what follows it."""
        following = self.sections[self.sections.index(section) + 1 :]
        if between and following:
            following[0].between = _stacked(between, following[0].between)

    def _move(self, statement: Statement, new: Path) -> None:
        table = new[:-1]
        self.moved[show_key(statement.path)] = show_key(new)
        root = self.sections[0]
        target = next(
            (section for section in self.sections if (self._new(section.path) or section.path) == table), None
        )
        if target is None and any(other.path[:1] == table[:1] for other in root.statements):
            root.statements.append(_with_key(statement, new, new))  # the table is written with dotted keys: go on so
            return
        if target is None:
            target = Section(table, "\n", f"[{show_key(table)}]\n")
            self.sections.append(target)
        moved = _with_key(statement, new[-1:], new)
        moved.between = ""
        target.statements.append(moved)

    def _taken(self, statement: Statement, new: Path) -> bool:
        """Both the old and the new key in one file: only a person knows which one is meant."""
        if look_up(self.file.values, new) is UNSET and not self._inline(new[:-1]):
            return False
        place = self.file.place(statement.path)
        here = self.file.place(new)
        old = show_key(statement.path)
        if look_up(self.file.values, new) is UNSET:
            message = f"`{old}` cannot be moved into `{show_key(new[:-1])}`, which is written on one line."
        else:
            message = f"`{old}` and `{show_key(new)}` are both given."
        help_text = f"Keep one value, as `{show_key(new)}`."
        self.left.append(Diagnostic("OSR001", message, place, here, "the new key", help_text))
        return True

    def _inline(self, table: Path) -> bool:
        """Whether a table is written as `name = { ... }`, which cannot be added to from outside."""
        statements = (statement for section in self.sections for statement in section.statements)
        return any(table[: len(statement.path)] == statement.path for statement in statements)

    def _check_directive(self, statement: Statement) -> None:
        """A directive that names an old key is not rewritten: it may have to become two."""
        name = statement.path[-1]
        names: Any = look_up(self.file.values, statement.path)
        if name != "_delete_" or not isinstance(names, list):
            return
        for index, old in enumerate(names):
            new = self._new((*statement.path[:-1], old))
            if new is not None:
                place = self.file.place((*statement.path, index), "value")
                help_text = f'Write `_delete_ = ["{new[-1]}"]` in [{show_key(new[:-1])}].'
                self.left.append(Diagnostic("OSR001", f"`_delete_` names `{old}`, which moved.", place, help=help_text))

    def _new(self, path: Path) -> Path | None:
        """Return where a key goes, if the file's kind has that place; a file without a kind may be of any."""
        kind = self.file.values.get("kind")
        kinds = [str(kind)] if kind in RECIPES else list(RECIPES)
        return next((new for new in renamed(path) if any(meaning_of(name, new, {}) for name in kinds)), None)

    def _old(self) -> bool:
        version = self.file.values.get("schema_version")
        return type(version) is int and version < VERSION

    def _version(self) -> None:
        """Write the version that the file is now in, as the first statement."""
        if not self._old() and (not self.moved or "schema_version" in self.file.values):
            return
        root = self.sections[0]
        given = next((each for each in root.statements if each.path == ("schema_version",)), None)
        if given is not None:
            end = given.key.spans[-1][1]
            given.text = given.text[:end] + re.sub(r"=\s*[^\s#]+", f"= {VERSION}", given.text[end:], count=1)
            return
        first: Any = next(iter([*root.statements, *self.sections[1:]]), None)
        above = "" if first is None else first.between
        if first is not None:
            first.between = "" if root.statements else "\n"
        root.statements.insert(0, Statement(("schema_version",), above, f"schema_version = {VERSION}\n", WrittenKey()))

    def _references(self, text: str) -> str:
        return REFERENCE.sub(lambda match: self._reference(match), text)

    def _reference(self, match: re.Match[str]) -> str:
        try:
            new = self._new(parse_key(match[1]))
        except KeySyntaxError:
            return match[0]
        return match[0] if new is None else f"${{{show_key(new)}}}"


def _stacked(above: str, below: str) -> str:
    """Put what stood above two statements together; where both have a blank line, one is enough."""
    blank = above == "\n" or above.endswith("\n\n")
    return above + (below[1:] if blank and below.startswith("\n") else below)


def _with_key(statement: Statement, key: Path, path: Path) -> Statement:
    """Return a statement under another key, at home at `path`."""
    return Statement(path, statement.between, statement.key.replaced(statement.text, key), WrittenKey())
