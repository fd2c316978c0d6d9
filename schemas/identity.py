"""Which runs are the same run: compared by the fields whose change would show in the weights."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from schemas.base import Cost

_SHOWS: frozenset[Cost] = frozenset({"breaks_resume", "changes_numerics", "needs_recache"})


def _leaves(table: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, frozenset[Cost]]]:
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra
            costs = extra.get("cost", []) if isinstance(extra, dict) else []
            yield f"{prefix}{name}", value, frozenset(costs)  # type: ignore[arg-type]  # only cost() writes this entry


def identity(recipe: BaseModel) -> dict[str, Any]:
    """Return every leaf that shapes what a run computes, by dotted key; how long and how it saves is left out."""
    return {key: value for key, value, costs in _leaves(recipe) if costs & _SHOWS}


def resume_breakers(before: BaseModel, now: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose change forbids to resume `before` as `now`, each with both values."""
    old = {key: value for key, value, costs in _leaves(before) if "breaks_resume" in costs}
    new = {key: value for key, value, costs in _leaves(now) if "breaks_resume" in costs}
    return {key: (old.get(key), new.get(key)) for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
