"""The tree of merged values: immutable nodes that remember every layer that spoke of them."""

from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from schemas.resolve.diagnostics import Place
from schemas.resolve.keys import Path
from schemas.resolve.sources import Source

Action = Literal["default", "set", "deleted", "appended", "prepended", "merged"]


class Unset(Enum):
    """The value of a key that no layer sets, or that the last layer to speak of it un-set."""

    UNSET = "unset"


UNSET = Unset.UNSET


class Event(NamedTuple):
    """What one layer did to a key.

    `value` is the key's value afterwards (UNSET when deleted), `written` what the layer says: an interpolation as
    text, the items of an append.
    """

    action: Action
    value: Any
    written: Any
    source: Source
    path: Path

    @property
    def label(self) -> str:
        """The layer's name: a file, `<command line>`, `schema default`."""
        return self.source.name

    @property
    def place(self) -> Place:
        """Where the layer says it; computed on each call."""
        return self.source.place(self.path, "value" if self.action in ("set", "merged") else "key")

    @property
    def key_place(self) -> Place:
        """Where the layer names the key."""
        return self.source.place(self.path)


class Leaf(NamedTuple):
    """A value that is not a table. With value UNSET it is what remains of a deleted key: its history."""

    value: Any
    history: tuple[Event, ...]


class Table(NamedTuple):
    """A table; its own history holds the layers that opened, emptied or replaced it."""

    items: Mapping[str, "Node"] = MappingProxyType({})
    history: tuple[Event, ...] = ()

    def is_set(self) -> bool:
        """Whether any layer's word in or on this table still stands."""
        if self.history:
            return self.history[-1].value is not UNSET or any(is_set(node) for node in self.items.values())
        return any(is_set(node) for node in self.items.values())


Node = Leaf | Table


def is_set(node: Node) -> bool:
    """Whether the node still counts, or is only the memory of something deleted."""
    return node.is_set() if isinstance(node, Table) else node.value is not UNSET


def plain(table: Table) -> dict[str, Any]:
    """Return the values that stand, as plain dicts."""
    return {
        name: plain(node) if isinstance(node, Table) else node.value
        for name, node in table.items.items()
        if is_set(node)
    }


def find(table: Table, path: Path) -> Node | None:
    """Return the node at a path of names, or None."""
    node: Node | None = table
    for part in path:
        node = node.items.get(str(part)) if isinstance(node, Table) else None
    return node


def leaves(table: Table, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield every leaf with its path, deleted ones too."""
    for name, node in table.items.items():
        if isinstance(node, Table):
            yield from leaves(node, (*path, name))
        else:
            yield (*path, name), node
