"""What there is to say about one key of a resolved recipe, and which keys differ from their defaults."""

from dataclasses import dataclass
from typing import Any

from schemas.resolve.diagnostics import Place
from schemas.resolve.fields import look_up
from schemas.resolve.keys import Path, parse_key, show_key
from schemas.resolve.meaning import Meaning, meaning_of
from schemas.resolve.nodes import Event
from schemas.resolve.resolved import Resolved


@dataclass(frozen=True, slots=True)
class Explanation:
    """A key: what it is, what it is set to, its default (UNSET where it has none), and every layer that spoke of it."""

    key: str
    meaning: Meaning
    value: Any
    default: Any
    history: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A key whose value is not the schema's default, and the layer that decided it."""

    key: str
    value: Any
    default: Any
    place: Place


def explain_key(resolved: Resolved, key: str) -> Explanation:
    """Explain one key, or a table. Raises UsageError for a key that neither the recipe nor its schema knows."""
    history = resolved.history(key)
    path = parse_key(key)
    tree = resolved.tree()
    meaning = meaning_of(resolved.recipe.kind, path, tree) or Meaning("", "", "", ())
    return Explanation(show_key(path), meaning, look_up(tree, path), look_up(resolved.defaults, path), history)


def changed_keys(resolved: Resolved) -> list[Changed]:
    """Return every key that differs from its default, in the order of the schema; `kind` has none and is left out."""
    return [
        Changed(show_key(path), value, default, resolved.place(show_key(path)))
        for path, value in flat(resolved.tree()).items()
        if path != ("kind",) and (default := look_up(resolved.defaults, path)) != value
    ]


def flat(values: dict[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Return every value of a tree by its path; an empty table counts as a value."""
    found: dict[Path, Any] = {}
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, dict) and value:
            found |= flat(value, here)
        else:
            found[here] = value
    return found
