"""What a key that no schema knows may have been meant to be."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from schemas.resolve.fields import field_at, look_up, places_of, siblings, tables_of
from schemas.resolve.keys import Path, show_key, show_part
from schemas.resolve.literals import write_value
from schemas.resolve.meaning import meaning_of
from schemas.resolve.renames import renamed

Values = Mapping[str, Any]


def unknown_key_hint(kind: str, values: Values, path: Path) -> str | None:
    """Return where the key has gone, which table, kind or family it belongs to, which is spelt alike, or what there is."""
    table, name = path[:-1], str(path[-1])
    return _renamed(kind, values, path) or _elsewhere(kind, values, table, name) or _close(kind, values, table, name)


def _renamed(kind: str, values: Values, path: Path) -> str | None:
    """Name the new place of a key that older versions, or Open-Sora, have elsewhere."""
    new = next((place for place in renamed(path) if meaning_of(kind, place, values)), None)
    if new is None:
        return None
    if new[-1] == path[-1] and len(path) == 1:
        return f"It belongs to [{show_key(new[:-1])}]: write `{show_key(new)}`."
    return f"It is `{show_key(new)}` here; `osora config migrate` rewrites such keys."


def _elsewhere(kind: str, values: Values, table: Path, name: str) -> str | None:
    """Name the table or the kind that has a key of exactly this name."""
    places = places_of(name)
    kinds = [other for other, path in places if path[:-1] == table]
    if kind in kinds:
        return _other_family(kind, values, table, name)
    if kinds:
        named = " and ".join(f'"{other}"' for other in kinds)
        return f'`{show_key((*table, name))}` belongs to recipes of kind {named}; this one is of kind "{kind}".'
    here = [path for other, path in places if other == kind]
    if here and name != "type":
        options = " or ".join(f"`{show_key(path)}`" for path in here[:3])
        where = " or ".join(f"[{show_key(path[:-1])}]" if path[1:] else "the top of the recipe" for path in here[:3])
        return f"It belongs to {where}: write {options}."
    there = [(other, path) for other, path in places if other != kind]
    if there and name != "type":
        other, path = there[0]
        return f'`{show_key(path)}` belongs to recipes of kind "{other}"; this one is of kind "{kind}".'
    return None


def _other_family(kind: str, values: Values, table: Path, name: str) -> str | None:
    """The key belongs to another `type` of the same table."""
    field = field_at(kind, table, values)
    members = tables_of(field.annotation) if field is not None else ()
    having = [member for member in members if name in member.model_fields and "type" in member.model_fields]
    types = [write_value(get_args(member.model_fields["type"].annotation)[0]) for member in having]
    if not types:
        return None
    chosen = write_value(look_up(values, (*table, "type")))
    return f"It belongs to {show_key(table)}.type = {' or '.join(types)}; here the type is {chosen}."


def _close(kind: str, values: Values, table: Path, name: str) -> str | None:
    known = siblings(kind, table, values)
    close = get_close_matches(name, known, 1)
    if close:
        return f"Did you mean `{show_part(close[0])}`?"
    if not known:
        return None
    where = f"[{show_key(table)}]" if table else f'A recipe of kind "{kind}"'
    return f"{where} has {', '.join(sorted(known))}."
