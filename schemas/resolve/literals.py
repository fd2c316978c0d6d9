"""TOML values as text: reading one that was typed on its own, writing one."""

import math
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from schemas.resolve.keys import quote, show_part

Comment = Callable[[tuple[str, ...]], str | None]
"""Returns what to write behind a key."""


def read_value(text: str) -> Any:
    """Read a value as TOML does; a bare word (and a date, which no recipe has) is text. Raises ValueError.

    The error is for text that starts like a string, an array or a table and does not end like one.
    """
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if text[:1] in ("[", "{", '"', "'") or text.lstrip("+-").isdecimal():
            raise ValueError(f"`{text}` is not a TOML value") from None
        return text
    value = values["value"]
    return text if len(values) != 1 or isinstance(value, (date, datetime, time)) else value


def read_scalar(text: str) -> Any:
    """Read a number, true or false; anything else stays text."""
    try:
        value = read_value(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def write_scalar(value: Any) -> str:
    """Write a value that is neither array nor table."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    raise TypeError(f"TOML has no {type(value).__name__}")


def write_value(value: Any) -> str:
    """Write any value on one line, tables inline."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{show_part(str(name))} = {write_value(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(write_value(item) for item in value)}]"
    return write_scalar(value)


def write_document(values: Mapping[str, Any], comment: Comment | None = None) -> str:
    """Write a whole TOML document: a table's own keys first, then a section for each table in it.

    `comment` may say something behind each key.
    """
    lines: list[str] = []
    _write_table(values, (), lines, comment)
    return "\n".join(lines).strip("\n") + "\n"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str], comment: Comment | None) -> None:
    own = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    if path and (own or not table):
        lines += ["", f"[{'.'.join(show_part(part) for part in path)}]"]
    for name, value in own.items():
        said = comment((*path, name)) if comment is not None else None
        lines.append(f"{show_part(name)} = {write_value(value)}" + (f"  # {said}" if said else ""))
    for name, value in table.items():
        if isinstance(value, Mapping):
            _write_table(value, (*path, name), lines, comment)
