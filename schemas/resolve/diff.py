"""The difference between two recipes: key by key, typed, with both places and what changing the key costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from schemas.base import Cost
from schemas.resolve.diagnostics import Place
from schemas.resolve.explain import flat
from schemas.resolve.keys import Path, show_key
from schemas.resolve.meaning import meaning_of
from schemas.resolve.nodes import UNSET
from schemas.resolve.resolved import DEFAULT, Resolved
from schemas.resolve.sources import FileSource

Change = Literal["changed", "added", "removed"]


@dataclass(frozen=True, slots=True)
class Side:
    """A recipe as the diff sees it: its values by path, where they stand, its kind if it has one.

    `absent` is the place of a key that it does not have.
    """

    name: str
    values: Mapping[Path, Any]
    place: Mapping[Path, Place]
    kind: str | None
    tree: Mapping[str, Any]
    absent: Place


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose value differs; UNSET stands for a side that has none."""

    path: Path
    before: Any
    after: Any
    before_place: Place
    after_place: Place
    costs: tuple[Cost, ...]

    @property
    def key(self) -> str:
        """The dotted key."""
        return show_key(self.path)

    @property
    def table(self) -> str:
        """The table that the key stands in; empty at the top."""
        return show_key(self.path[:-1])

    @property
    def change(self) -> Change:
        """Whether the key is only in one of the recipes."""
        return "added" if self.before is UNSET else "removed" if self.after is UNSET else "changed"


def resolved_side(resolved: Resolved) -> Side:
    """Return a recipe with every layer and default applied."""
    tree = resolved.tree()
    values = flat(tree)
    return Side(resolved.source, values, _Places(resolved), resolved.recipe.kind, tree, Place(DEFAULT.name))


def raw_side(file: FileSource) -> Side:
    """Return what a file itself says: no bases, no defaults, directives as they are written."""
    values = flat(file.values)
    places = {path: file.place(path, "value") for path in values}
    kind = file.values.get("kind")
    return Side(file.name, values, places, kind if isinstance(kind, str) else None, file.values, Place(file.name))


def differences(before: Side, after: Side) -> list[Difference]:
    """Return every key whose value or type differs, tables together, in the order of the first recipe."""
    paths = dict.fromkeys([*before.values, *after.values])
    found = [path for path in paths if not _same(before.values.get(path, UNSET), after.values.get(path, UNSET))]
    tables = list(dict.fromkeys(path[:-1] for path in paths))
    found.sort(key=lambda path: tables.index(path[:-1]))
    return [_difference(path, before, after) for path in found]


def consequences(found: list[Difference]) -> dict[Cost, list[str]]:
    """Return what the differences cost: cost -> keys, in the order of the keys."""
    by_cost: dict[Cost, list[str]] = {}
    for difference in found:
        for cost in difference.costs:
            by_cost.setdefault(cost, []).append(difference.key)
    return by_cost


class _Places(Mapping[Path, Place]):
    """Looks places up when they are asked for, as most keys do not differ."""

    def __init__(self, resolved: Resolved) -> None:
        self._resolved = resolved

    def __getitem__(self, path: Path) -> Place:
        return self._resolved.place(show_key(path))

    def __iter__(self) -> Iterator[Path]:
        return iter(flat(self._resolved.tree()))

    def __len__(self) -> int:
        return len(flat(self._resolved.tree()))


def _difference(path: Path, before: Side, after: Side) -> Difference:
    costs: dict[Cost, None] = {}
    for side in (before, after):
        kind = side.kind or after.kind or before.kind
        meaning = meaning_of(kind, path, side.tree) if kind else None
        costs |= dict.fromkeys(meaning.costs if meaning else ())
    return Difference(
        path,
        before.values.get(path, UNSET),
        after.values.get(path, UNSET),
        _place(before, path),
        _place(after, path),
        tuple(costs),
    )


def _place(side: Side, path: Path) -> Place:
    return side.place[path] if path in side.values else side.absent


def _same(before: Any, after: Any) -> bool:
    """1 and 1.0 and true are three values, as they are in TOML."""
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return type(before) is type(after) and bool(before == after)
