"""A resolved recipe: the validated model, and for every key who set it where."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from schemas.errors import UsageError
from schemas.recipes import AnyRecipe
from schemas.resolve.diagnostics import Diagnostic, Place
from schemas.resolve.fields import as_toml, field_at, look_up, siblings
from schemas.resolve.interpolation import escape
from schemas.resolve.keys import KeySyntaxError, Path, parse_key, show_key, show_part
from schemas.resolve.literals import write_document
from schemas.resolve.nodes import UNSET, Event, Table, find
from schemas.resolve.sources import LabelSource

DEFAULT = LabelSource("schema default", {})


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe after all layers: immutable, and able to say where every value comes from.

    `source` is the recipe's file as the user named it, `layers` the names of all layers, weakest first; `warnings` is
    what its rules find odd and let pass.
    """

    recipe: AnyRecipe
    source: str
    layers: tuple[str, ...]
    merged: Table
    defaults: Mapping[str, Any]
    warnings: tuple[Diagnostic, ...] = ()

    def tree(self) -> dict[str, Any]:
        """Return every value as plain TOML would hold it: dicts, lists, keys as text; unset keys are left out."""
        tree = as_toml(self.recipe)
        return {"kind": tree.pop("kind"), **tree}

    def lock(self, provenance: bool = False) -> str:
        """Return a self-contained TOML text, without bases and interpolation, that resolves to an equal recipe.

        With `provenance`, a comment behind every key says which layer set it, and where.
        """
        header = "# Resolved by osora: complete, without bases or references. It runs as it is.\n"
        return header + write_document(_escaped(self.tree()), self._origin if provenance else None)

    def _origin(self, path: Path) -> str:
        return str(self.place(show_key(path))).encode("unicode_escape").decode()

    def history(self, key: str) -> tuple[Event, ...]:
        """Return what each layer did to a key, oldest first; the last event's value is the key's value.

        Raises UsageError for a key that neither the recipe nor its schema knows.
        """
        path = self._path(key)
        node = find(self.merged, path)
        default = look_up(self.defaults, path)
        events = [] if default is UNSET else [Event("default", default, default, DEFAULT, path)]
        for event in node.history if node is not None else ():
            back = Event("deleted", default, event.written, event.source, event.path)
            events.append(back if event.action == "deleted" else event)
        return tuple(events)

    def place(self, key: str) -> Place:
        """Return where a key got its value: the last layer that set it, or the schema's default."""
        events = self.history(key)
        if not events or events[-1].value is UNSET or events[-1].action == "deleted":
            return Place(DEFAULT.name)
        return events[-1].place

    def _path(self, key: str) -> Path:
        try:
            path = parse_key(key)
        except KeySyntaxError as error:
            raise UsageError(f"`{key}`: {error}. Write it as `table.key`.") from None
        if find(self.merged, path) is None and field_at(self.recipe.kind, path, self.tree()) is None:
            raise UsageError(f"{self.source} has no key `{key}`.{self._hint(path)}")
        return path

    def _hint(self, path: Path) -> str:
        close = get_close_matches(str(path[-1]), siblings(self.recipe.kind, path[:-1], self.tree()), 1)
        return f" Did you mean `{'.'.join(show_part(str(part)) for part in (*path[:-1], close[0]))}`?" if close else ""


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value
