"""What a key is: its type in words, its limits, its default, and what changing it costs; read off the schema."""

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from schemas.base import Cost
from schemas.resolve.fields import choices, field_at
from schemas.resolve.keys import Path
from schemas.resolve.literals import write_value

WORDS: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


class Meaning(NamedTuple):
    """A key as its schema knows it; `inside` is the field around a key that has a free name (a bucket)."""

    description: str
    type: str
    limits: str
    costs: tuple[Cost, ...]
    inside: Path | None = None


def meaning_of(kind: str, path: Path, values: Mapping[str, Any]) -> Meaning | None:
    """Return what a key is, or None where the schema of the kind has no such key."""
    names = path
    field = field_at(kind, names, values)
    while field is None and len(names) > 1:
        names = names[:-1]
        field = field_at(kind, names, values)
    annotation = None if field is None else _value_type(field.annotation, len(path) - len(names))
    if field is None or annotation is None:
        return None
    inside = None if names == path else names
    limits = () if inside is not None else limits_in(field.metadata)
    return Meaning(field.description or "", type_in_words(annotation), ", ".join(limits), costs_of(field), inside)


def costs_of(field: FieldInfo) -> tuple[Cost, ...]:
    """Return what changing a field costs."""
    extra = field.json_schema_extra
    found = extra.get("cost", []) if isinstance(extra, dict) else []
    return tuple(cast("Iterable[Cost]", found))


def limits_in(metadata: Iterable[Any]) -> tuple[str, ...]:
    """Return the limits among a field's or an annotation's metadata, as `>= 1`."""
    found = []
    for entry in metadata:
        entry_limits = limits_in(entry.metadata) if isinstance(entry, FieldInfo) else ()
        signs = tuple(
            f"{sign} {write_value(bound)}"
            for name, sign in SIGNS.items()
            if (bound := getattr(entry, name, None)) is not None
        )
        found += [*entry_limits, *signs]
    return tuple(dict.fromkeys(found))


def type_in_words(annotation: Any) -> str:
    """Say an annotation in words: `whole number >= 1`, `one of "a", "b"`, `[number, number]`, `list of text`, `table`."""
    words = dict.fromkeys(_words(choice) for choice in _alternatives(annotation) if choice is not NoneType)
    return " or ".join(words)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return a union's members, each with the limits that it is annotated with."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return tuple(choice for member in arguments for choice in _alternatives(member))
    if origin is Annotated and len(choices(annotation)) > 1:
        return _alternatives(arguments[0])
    return (annotation,)


def _words(choice: Any) -> str:
    origin, arguments = get_origin(choice), get_args(choice)
    if origin is Annotated:
        limits = " and ".join(limits_in(arguments[1:]))
        return type_in_words(arguments[0]) + (f" {limits}" if limits else "")
    if origin is Literal:
        options = ", ".join(write_value(option) for option in arguments)
        return options if len(arguments) == 1 else f"one of {options}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {type_in_words(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_in_words(argument) for argument in arguments)}]"
    if origin is dict:
        return f"table of name -> {type_in_words(arguments[1])}"
    return WORDS.get(choice, "table")


def _value_type(annotation: Any, depth: int) -> Any:
    """Return the type of what stands `depth` names inside a table of free names, or None where there is no such table."""
    for _ in range(depth):
        table = next((choice for choice in choices(annotation) if get_origin(choice) is dict), None)
        if table is None:
            return None
        annotation = get_args(table)[1]
    return annotation
