"""Reading an Open-Sora config: MMEngine-style Python through its syntax tree, or the resolved JSON."""

import ast
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import OsoraError
from schemas.open_sora.expressions import RefusedError, evaluate

BASE, DELETE = "_base_", "_delete_"
DEEPEST = 50
"""How many files may build on one another."""
Place = tuple[str, int, int]
"""File, line and column, both from 1."""


class ConfigError(OsoraError):
    """A config that cannot be read; the message begins with the place."""


@dataclass(frozen=True)
class Config:
    """An Open-Sora config after its bases: nested dicts with text keys, and where each key was written."""

    file: str
    values: dict[str, Any]
    places: Mapping[str, Place] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """Return `file:line:column` of a dotted key, or of the nearest key around it; JSON has only its file."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return ":".join(str(part) for part in self.places.get(key, (self.file,)))


def read_config(path: str | os.PathLike[str]) -> Config:
    """Read a `.py` or `.json` config with everything it builds on. Raises ConfigError with the place."""
    name = os.fspath(path)
    if name.endswith(".json"):
        return Config(name, _read_json(name))
    if not name.endswith(".py"):
        raise ConfigError(f"{name}: an Open-Sora config is a .py file, or .json with the same keys.")
    values, places = _read_python(name, ())
    return Config(name, values, places)


def _text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{name}: cannot read it: {error}") from error


def _read_json(name: str) -> dict[str, Any]:
    try:
        values = json.loads(_text(name))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: the JSON is nested too deeply.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: the JSON must be an object of config keys, not {type(values).__name__}.")
    return values


def _read_python(name: str, above: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Place]]:
    """Return values and places of a file laid over its bases."""
    real = os.path.realpath(name)
    if real in above:
        raise ConfigError(f"{name}: the file builds on itself, through _base_.")
    if len(above) > DEEPEST:
        raise ConfigError(f"{name}: more than {DEEPEST} files build on one another.")
    own, places, bases = _statements(name)
    values: dict[str, Any] = {}
    found: dict[str, Place] = {}
    for base in bases:
        inherited, where = _read_python(os.path.join(os.path.dirname(name), base), (*above, real))  # noqa: PTH118, PTH120 - as written
        values, found = merged(values, inherited), found | where
    return merged(values, own), found | places


def _statements(name: str) -> tuple[dict[str, Any], dict[str, Place], list[str]]:
    """Return what one file assigns, where, and the files it builds on."""
    text = _text(name)
    try:
        tree = ast.parse(text, name)
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, "lineno", None) or 1, getattr(error, "offset", None) or 1
        raise ConfigError(f"{name}:{line}:{column}: not Python: {getattr(error, 'msg', error)}") from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"{name}: the file is nested too deeply.") from error
    values: dict[str, Any] = {}
    places: dict[str, Place] = {}
    try:
        for statement in tree.body:
            target = _target(statement)
            if target is not None:
                key, value = target
                values[key] = evaluate(value, values)
                places |= dict(_places(name, statement, key, value))
        bases = _bases(tree, values.pop(BASE, []))
    except RefusedError as refused:
        line, column = getattr(refused.node, "lineno", 1), getattr(refused.node, "col_offset", 0) + 1
        raise ConfigError(f"{name}:{line}:{column}: {refused}.") from refused
    except RecursionError as error:
        raise ConfigError(f"{name}: the file is nested too deeply.") from error
    return values, places, bases


def _target(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    """Return the name and the expression of `name = expression`, None for a text that stands alone."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name, value
        case ast.Expr(value=ast.Constant(value=str())):
            return None
    what = type(statement).__name__.lower()
    raise RefusedError(statement, f"this statement ({what}) is not read: only `name = value` is, and nothing runs")


def _bases(tree: ast.Module, named: Any) -> list[str]:
    files = named if isinstance(named, list) else [named]
    for file in files:
        if not isinstance(file, str) or "::" in file:
            raise RefusedError(tree.body[0], f"{BASE} names files by relative paths, not {file!r}")
    return files


def _places(file: str, at: ast.AST, key: str, value: ast.expr) -> Iterator[tuple[str, Place]]:
    """Yield the place of a key, and of every key that its value spells out."""
    yield key, (file, getattr(at, "lineno", 1), getattr(at, "col_offset", 0) + 1)
    if isinstance(value, ast.Dict):
        for name, inner in zip(value.keys, value.values, strict=True):
            if isinstance(name, ast.Constant):
                yield from _places(file, name, f"{key}.{name.value!s}", inner)
    elif isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg is not None:
                yield from _places(file, keyword, f"{key}.{keyword.arg}", keyword.value)


def merged(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a config over another as MMEngine does: dicts key by key, unless `_delete_` is set; anything else replaces."""
    both = dict(weak)
    for name, value in strong.items():
        below = both.get(name)
        if isinstance(value, Mapping):
            keep = isinstance(below, Mapping) and not value.get(DELETE, False)
            inner = {key: item for key, item in value.items() if key != DELETE}
            both[name] = merged(below if keep and isinstance(below, Mapping) else {}, inner)
        else:
            both[name] = value
    return both
