"""What the schemas know about a key: its field, its default, and where else a key of that name lives."""

from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.base import Schema
from schemas.recipes import RECIPES
from schemas.resolve.keys import Path
from schemas.resolve.nodes import UNSET


def choices(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, with `Annotated` and nesting taken off."""
    if get_origin(annotation) is Annotated:
        return choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(choice for member in get_args(annotation) for choice in choices(member))
    return (annotation,)


def tables_of(annotation: Any) -> tuple[type[Schema], ...]:
    """Return the schemas that a field may hold."""
    return tuple(choice for choice in choices(annotation) if isinstance(choice, type) and issubclass(choice, Schema))


def member_for(members: tuple[type[Schema], ...], values: Any, default: Any) -> type[Schema]:
    """Return the member of a tagged union that `values` asks for by `type`, else the default's, else the first."""
    tag = values.get("type") if isinstance(values, Mapping) else None
    for member in members:
        if (
            tag is not None
            and "type" in member.model_fields
            and tag in get_args(member.model_fields["type"].annotation)
        ):
            return member
    return type(default) if isinstance(default, members) else members[0]


class _Plan(NamedTuple):
    """What is known of a field before any recipe is: computed once a schema, as it is asked for with every recipe."""

    name: str
    required: bool
    default: Any
    plain: Any
    members: tuple[type[Schema], ...]


@cache
def _plans(model: type[BaseModel]) -> tuple[_Plan, ...]:
    plans = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        plans.append(_Plan(name, field.is_required(), default, as_toml(default), tables_of(field.annotation)))
    return tuple(plans)


def defaults_of(model: type[BaseModel], values: Mapping[str, Any], instance: BaseModel | None = None) -> dict[str, Any]:
    """Return the weakest layer: every default of a schema, as plain TOML values, for the union members `values` picks.

    Fields whose default is None are left out, as TOML has no null.
    """
    found: dict[str, Any] = {}
    for name, required, schema_default, plain, members in _plans(model):
        default = schema_default if instance is None else getattr(instance, name)
        given = values.get(name)
        if members and (given is not None or isinstance(default, members)):
            member = member_for(members, given, default)
            inner = given if isinstance(given, Mapping) else {}
            found[name] = defaults_of(member, inner, default if type(default) is member else None)
        elif instance is not None and default is not None:
            found[name] = as_toml(default)
        elif default is not None and not required:
            found[name] = plain
    return found


def as_toml(value: Any) -> Any:
    """Return a validated value as TOML can say it: tuples as lists, keys as text, None left out."""
    if isinstance(value, BaseModel):
        return {name: as_toml(inner) for name, inner in value if inner is not None}
    if isinstance(value, Mapping):
        return {str(name): as_toml(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, (tuple, list)):
        return [as_toml(item) for item in value]
    return value


def look_up(values: Any, path: Path) -> Any:
    """Return what a tree of plain dicts holds at a path of names, or UNSET."""
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return UNSET
        values = values[part]
    return values


def field_at(kind: str, path: Path, values: Mapping[str, Any]) -> FieldInfo | None:
    """Return the field that a path of names leads to, or None where the schema of the kind has none."""
    model: type[BaseModel] | None = RECIPES.get(kind)
    field: FieldInfo | None = None
    for index, part in enumerate(path):
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is None:
            return None
        members = tables_of(field.annotation)
        model = member_for(members, look_up(values, path[: index + 1]), field.default) if members else None
    return field


def siblings(kind: str, path: Path, values: Mapping[str, Any]) -> list[str]:
    """Return the keys that the table at `path` may have; nothing for tables with free names."""
    if not path:
        return list(RECIPES[kind].model_fields)
    field = field_at(kind, path, values)
    members = tables_of(field.annotation) if field is not None else ()
    if field is None or not members:
        return []
    return list(member_for(members, look_up(values, path), field.default).model_fields)


def places_of(name: str) -> list[tuple[str, Path]]:
    """Return every (kind, path) at which some recipe has a key of this name."""
    return _index().get(name, [])


@cache
def _index() -> dict[str, list[tuple[str, Path]]]:
    index: dict[str, list[tuple[str, Path]]] = {}
    for kind, model in RECIPES.items():
        for path in _paths(model, ()):
            index.setdefault(str(path[-1]), []).append((kind, path))
    return index


def _paths(model: type[BaseModel], above: Path) -> Iterator[Path]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        for member in tables_of(field.annotation):
            yield from _paths(member, (*above, name))


def takes_text(field: FieldInfo | None) -> bool:
    """Whether a field's value may be text; a key that no schema knows may be anything."""
    if field is None:
        return True
    kinds = [choice for choice in choices(field.annotation) if choice is not NoneType]
    return any(
        choice is str or (get_origin(choice) is Literal and isinstance(get_args(choice)[0], str)) for choice in kinds
    )


def list_policy(kind: str, path: Path, values: Mapping[str, Any]) -> str | None:
    """Return how the lists of several layers come together at a key, or None where the strongest layer's list stands."""
    if kind not in RECIPES or path[-1] not in _with_policy(RECIPES[kind]):
        return None
    field = field_at(kind, path, values)
    return None if field is None else policy_of(field)


def policy_of(field: FieldInfo) -> str | None:
    """Return the list policy that a field's `json_schema_extra` names."""
    extra = field.json_schema_extra
    found = extra.get("lists") if isinstance(extra, dict) else None
    return found if isinstance(found, str) else None


@cache
def _with_policy(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of all fields with a list policy, at any depth: for most recipes there is none to look up."""
    names = set()
    for name, field in model.model_fields.items():
        if policy_of(field) is not None:
            names.add(name)
        for member in tables_of(field.annotation):
            names |= _with_policy(member)
    return frozenset(names)
