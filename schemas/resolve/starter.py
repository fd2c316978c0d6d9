"""A commented recipe to start from, made of the schema: what one has to choose is set, everything else is shown."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from schemas.errors import UsageError
from schemas.recipes import RECIPES
from schemas.resolve.fields import as_toml, member_for, tables_of
from schemas.resolve.json_schema import packaged_schema
from schemas.resolve.keys import Path, show_key, show_part
from schemas.resolve.literals import write_value
from schemas.resolve.meaning import meaning_of
from schemas.resolve.renames import VERSION

CLIPS: dict[str, Any] = {"dataset": {"data_path": "meta.csv"}, "buckets": {"256px": {"33": [1.0, 4]}}}
"""What every pass over clips starts with: a table as `osora meta` writes it, and clips of 33 frames, four at a time."""
STARTS: dict[str, dict[str, Any]] = {
    "train": {**CLIPS, "max_steps": 1000, "optim": {"lr": 1e-5, "warmup_steps": 100}},
    "vae-train": {**CLIPS, "max_steps": 1000, "optim": {"lr": 1e-5, "warmup_steps": 100}},
    "sample": {"sampling": {"resolution": "256px", "num_frames": 33}},
    "vae-sample": CLIPS,
    "vae-stats": CLIPS,
}
"""What a new recipe of each kind sets."""
OPTIONAL = 2
"""Levels of tables that are shown; what lies deeper is in the reference."""


def starter(kind: str, schema: str | None = None) -> str:
    """Return a recipe of a kind that resolves as it is, with every other key shown.

    `schema` is where editors find its JSON Schema; this installation's own if left out. Raises UsageError for no kind.
    """
    if kind not in RECIPES:
        raise UsageError(f"there is no kind {kind}. It is one of {', '.join(RECIPES)}.")
    head = [
        f"#:schema {schema or packaged_schema(kind)}",
        f"# {(RECIPES[kind].__doc__ or '').strip()} Lines that start with `# ` and a key show its default: remove the `# `.",
        "# `osora config validate FILE` checks this file, `osora config explain FILE KEY` says more about a key.",
        "",
        f"schema_version = {VERSION}",
        f"kind = {write_value(kind)}",
    ]
    model = RECIPES[kind]
    return "\n".join([*head, *_table(kind, model, (), STARTS[kind], None)]) + "\n"


def _table(kind: str, model: type[BaseModel], path: Path, chosen: Mapping[str, Any], default: Any) -> Iterator[str]:
    """Yield the keys of a table, then its tables."""
    tables = []
    for name, field in model.model_fields.items():
        value = chosen.get(name)
        members = tables_of(field.annotation)
        standard = getattr(default, name, field.get_default(call_default_factory=True))
        if isinstance(value, Mapping) or members:
            tables.append((name, members, value, standard))
        elif (*path, name) not in (("schema_version",), ("kind",)):
            yield from _key(kind, (*path, name), value, standard)
    for name, members, value, standard in tables:
        yield from _section(kind, (*path, name), members, value, standard)


def _key(kind: str, path: Path, value: Any, default: Any) -> Iterator[str]:
    meaning = meaning_of(kind, path, {})
    if meaning is not None:
        yield ""
        yield f"# {meaning.description} ({', '.join(part for part in (meaning.type, meaning.limits) if part)})"
    name = show_part(str(path[-1]))
    if value is not None:
        yield f"{name} = {write_value(value)}"
    elif default is not None and default is not PydanticUndefined:
        yield f"# {name} = {write_value(as_toml(default))}"
    else:
        yield f"# {name} =                 # not set"


def _section(kind: str, path: Path, members: tuple[Any, ...], value: Any, default: Any) -> Iterator[str]:
    """Yield a table; one that nothing is chosen in, or whose absence means something, is commented out as a whole."""
    meaning = meaning_of(kind, path, {})
    lines = ["", f"# {meaning.description}"] if meaning is not None else [""]
    header = f"[{show_key(path)}]"
    if not members:
        yield from lines
        yield header
        yield from (f"{show_part(str(name))} = {write_value(item)}" for name, item in (value or {}).items())
        return
    member = member_for(members, value, default)
    inner = list(_table(kind, member, path, value or {}, default)) if len(path) <= OPTIONAL else []
    yield from lines
    yield header if default is not None else f"# {header}"
    yield from inner if default is not None else (_commented(line) for line in inner)


def _commented(line: str) -> str:
    return line if not line or line.startswith("#") else f"# {line}"
