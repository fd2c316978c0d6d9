"""Keys that recipes can set and no code reads yet: a job refuses to run with one of them changed, instead of ignoring it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from schemas.recipes import AnyRecipe

UNREAD: Mapping[str, str] = {}
"""Key, or table of keys -> the issue that will read it. The list only shrinks: a test compares it with the code."""


def unread_settings(recipe: AnyRecipe) -> list[str]:
    """Return the keys of `UNREAD` that the recipe sets to something else than their default, in the recipe's order.

    An optional table, which is left out by default, counts as one key.
    """
    default = type(recipe).model_validate({"kind": recipe.kind})
    return [key for key in _changed(recipe, default, "") if unread(key)]


def unread(key: str) -> bool:
    """Whether no code reads a key: it, or a table that it is in, is in `UNREAD`."""
    return any(key == entry or key.startswith(f"{entry}.") for entry in UNREAD)


def _changed(table: BaseModel, default: BaseModel | None, prefix: str) -> Iterator[str]:
    """Yield the keys whose value is not the default: that of the parent's default table, or else the field's own."""
    for name, field in type(table).model_fields.items():
        key, value = f"{prefix}{name}", getattr(table, name)
        usual: Any = getattr(default, name) if default is not None else field.default
        if isinstance(value, BaseModel) and usual is not None:
            yield from _changed(value, usual if type(usual) is type(value) else None, f"{key}.")
        elif value != usual:
            yield key
