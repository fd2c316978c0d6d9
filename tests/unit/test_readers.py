"""Every key of every recipe is read by code, or is on a list that a job refuses to run with."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from schemas.readers import UNREAD, unread, unread_settings
from schemas.recipes import RECIPES
from schemas.resolve import resolve
from schemas.resolve.fields import tables_of

ROOT = Path(__file__).parents[2]
DESCRIBES_ITSELF = {"kind", "type", "schema_version"}  # the resolver and pydantic read these


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key that a recipe may set, tables before their keys, for all members of a union."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for member in tables_of(field.annotation):
            yield from keys_of(member, f"{prefix}{name}.")


def attributes_read() -> set[str]:
    """Return every name that code outside `schemas` reads from anything. A plan foresees a job and is none: it does not count."""
    found: set[str] = set()
    for package in ("opensora_cli", "opensora_models"):
        for file in (ROOT / package).rglob("*.py"):
            if file.parent.name == "planning":
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            }
    return found


def unread_keys() -> set[str]:
    """Return the keys that cannot be read, since their own name or that of a table around them never is.

    Tables whose members are read by iterating over them (`ConditionWeights.weights`) count as read.
    """
    names = attributes_read()
    by_iteration = ("condition.",)
    return {
        key
        for model in RECIPES.values()
        for key in keys_of(model)
        if key.rsplit(".", 1)[-1] not in DESCRIBES_ITSELF
        and not key.startswith(by_iteration)
        and not all(part in names for part in key.split("."))
    }


def test_what_no_code_reads_is_on_the_list() -> None:
    assert sorted(key for key in unread_keys() if not unread(key)) == []


def test_the_list_only_shrinks() -> None:
    missing = unread_keys()
    stale = [key for key in UNREAD if not any(other == key or other.startswith(f"{key}.") for other in missing)]
    assert stale == [], "code reads these now: take them off schemas.readers.UNREAD"


@pytest.mark.parametrize("kind", RECIPES)
def test_defaults_are_never_refused(kind: str) -> None:
    assert unread_settings(RECIPES[kind].model_validate({"kind": kind})) == []


@pytest.mark.parametrize(
    ("recipe", "sets", "keys"),
    [
        ("tiny/train", [], []),
        ("tiny/train", ["optim.lr=1.0", "ae.latent_channels=4"], []),
        ("tiny/train", ["parallel.plugin=fsdp", "optim.cls=AdamW8bit"], []),
        ("stage1", ["lora.r=4"], []),
        ("tiny/train", ["text.t5.shardformer=true", "parallel.static_graph=true"], []),
        ("tiny/vae", ["discriminator.ndf=8", "mixed_image_ratio=0.5"], []),
        ("sample/256px", [], []),
        ("sample/t2i2v_256px", [], []),
        (
            "sample/768px",
            ["sampling.offload=model"],
            [],
        ),
    ],
)
def test_changed_keys_are_named(recipe: str, sets: list[str], keys: list[str]) -> None:
    assert sorted(unread_settings(resolve(recipe, sets=sets).recipe)) == sorted(keys)
