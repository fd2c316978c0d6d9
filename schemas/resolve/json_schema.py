"""JSON Schema (draft 2020-12) of the recipe files as they are written, for editors.

A file is only a part of a recipe: every key may come from a base, so none is required. It may hold directives, and a
`${...}` wherever a value may stand. Nothing that resolves may be flagged; what cannot be said here is left to `validate`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

import schemas
from schemas.base import COST_MEANING
from schemas.errors import UsageError
from schemas.recipes import RECIPES
from schemas.resolve.renames import VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ANY_KIND = "recipe"
"""The schema that takes a recipe of any kind, and layers, which have none."""
SHARED: dict[str, dict[str, Any]] = {
    "reference": {
        "type": "string",
        "pattern": r"\$\{",
        "description": "A reference, such as ${optim.lr}, ${env:HOME} or ${recipe_dir}.",
    },
    "_delete_": {
        "description": "true forgets everything inherited in this table; a list un-sets inherited keys.",
        "anyOf": [{"const": True}, {"type": "array", "items": {"type": "string"}}],
    },
    "_append_": {
        "description": "Adds to the end of an inherited list: `_append_.NAME = [...]`.",
        "type": "object",
        "additionalProperties": {"type": "array"},
    },
    "_prepend_": {
        "description": "Adds to the front of an inherited list: `_prepend_.NAME = [...]`.",
        "type": "object",
        "additionalProperties": {"type": "array"},
    },
}
"""What any table or value may hold, as definitions that the schemas refer to."""
BASE = {
    "description": "Recipes that come first: files seen from this one's folder, or packaged names; later ones win.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
DROPPED = ("title", "discriminator", "required", "cost", "lists", "default")
"""What Pydantic says that is of no use in an editor, or not true of a part of a recipe."""

Node = dict[str, Any]


def schema_names() -> tuple[str, ...]:
    """Return the names that `json_schema` takes: every kind, and the one for any."""
    return (*RECIPES, ANY_KIND)


def packaged_schema(name: str) -> str:
    """Return where the committed schema of a kind stands on this machine, as a URI that an editor opens."""
    return (Path(schemas.__file__).parent / "json" / f"{name}.schema.json").resolve().as_uri()


def json_schema(name: str) -> Node:
    """Return the schema of one kind's files, or of any recipe file. Raises UsageError for an unknown name."""
    if name not in schema_names():
        raise UsageError(f"there is no kind {name}. It is one of {', '.join(schema_names())}.")
    kinds = list(RECIPES) if name == ANY_KIND else [name]
    references, definitions = models_json_schema(
        [(RECIPES[kind], "validation") for kind in kinds], ref_template="#/$defs/{model}"
    )
    tables = {key: _table(node) for key, node in definitions["$defs"].items()}
    for kind in kinds:
        reference = references[(RECIPES[kind], "validation")]["$ref"]
        tables[reference.rsplit("/", 1)[1]]["properties"]["_base_"] = BASE
    roots = [references[(RECIPES[kind], "validation")] for kind in kinds]
    head = {"$schema": DIALECT, "$id": f"urn:osora:schema:{name}:{VERSION}", "title": f"osora {name}"}
    return {**head, **(roots[0] if len(roots) == 1 else {"anyOf": roots}), "$defs": {**tables, **SHARED}}


def _table(node: Mapping[str, Any]) -> Node:
    """Rewrite a table with fixed keys, or a definition that is none."""
    if "properties" not in node:
        return _value(node)
    table = _cleaned(node)
    table["properties"] = {name: _field(field) for name, field in node["properties"].items()}
    table["properties"] |= _directives()
    return table


def _field(node: Mapping[str, Any]) -> Node:
    """Rewrite a key: its value, and what it means with its default and what a change costs."""
    field = _value(node)
    said = [str(node["description"])] if "description" in node else []
    if node.get("default") is not None and not isinstance(node["default"], dict):
        field["default"] = node["default"]
    said += [f"{cost}: {COST_MEANING[cost]}." for cost in node.get("cost", ())]
    return {**field, "description": "\n".join(said)} if said else field


def _value(node: Mapping[str, Any]) -> Node:
    """Rewrite a value: without null, with references, its union's members side by side."""
    if "$ref" in node:
        return _cleaned(node)
    if "anyOf" in node or "oneOf" in node:
        members = [member for member in node.get("anyOf", node.get("oneOf", ())) if member.get("type") != "null"]
        kept = {key: value for key, value in _cleaned(node).items() if key not in ("anyOf", "oneOf")}
        written = [_value(member) for member in members]
        return {**written[0], **kept} if len(written) == 1 else {**kept, "anyOf": written}
    if node.get("type") == "object":
        return _free_names(node)
    if node.get("type") == "array":
        return _or_reference(_array(node))
    return _cleaned(node) if _takes_any_text(node) else _or_reference(_cleaned(node))


def _array(node: Mapping[str, Any]) -> Node:
    array = _cleaned(node)
    if "prefixItems" in node:
        array["prefixItems"] = [_value(item) for item in node["prefixItems"]]
    if isinstance(node.get("items"), dict):
        array["items"] = _value(node["items"])
    return array


def _free_names(node: Mapping[str, Any]) -> Node:
    """Rewrite a table whose keys are names of the user's; the directives are no such names."""
    table = _cleaned(node)
    inner = node.get("additionalProperties")
    if isinstance(inner, dict):
        table["additionalProperties"] = _value(inner)
    table["properties"] = _directives()
    return table


def _directives() -> Node:
    return {name: {"$ref": f"#/$defs/{name}"} for name in SHARED if name != "reference"}


def _or_reference(node: Node) -> Node:
    """Let a reference stand in a value's place; what is said of the key stays outside of the choice."""
    outside: Node = {key: node.pop(key) for key in ("description", "default") if key in node}
    return {**outside, "anyOf": [node, {"$ref": "#/$defs/reference"}]}


def _takes_any_text(node: Mapping[str, Any]) -> bool:
    return node.get("type") == "string" and not {"enum", "const", "pattern"} & node.keys()


def _cleaned(node: Mapping[str, Any]) -> Node:
    return {key: value for key, value in node.items() if key not in DROPPED}
