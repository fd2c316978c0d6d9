"""Every key of every recipe is read by code: none is accepted and ignored."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from schemas.recipes import RECIPES
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
    """Return every name that code outside `schemas` reads from anything. A plan foresees a job and is none: it does not count.

    What latents a clip becomes is asked of `schemas/autoencoder/frames.py`, by models too: that counts.
    """
    found: set[str] = set()
    files = [ROOT / "schemas" / "autoencoder" / "frames.py"]
    for package in ("opensora_cli", "opensora_models"):
        files += (file for file in (ROOT / package).rglob("*.py") if file.parent.name != "planning")
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        }
    return found


def unread_keys() -> set[str]:
    """Return the keys that cannot be read, since their own name or that of a table around them never is.

    Tables whose members are read by iterating over them (`ConditionWeights.weights`, `MaskRatios.ratios`) count as read.
    """
    names = attributes_read()
    by_iteration = ("condition.", "mask_ratios.")
    return {
        key
        for model in RECIPES.values()
        for key in keys_of(model)
        if key.rsplit(".", 1)[-1] not in DESCRIBES_ITSELF
        and not key.startswith(by_iteration)
        and not all(part in names for part in key.split("."))
    }


def test_every_key_is_read() -> None:
    assert sorted(unread_keys()) == []


def test_a_key_that_nothing_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    names = attributes_read() - {"grad_clip"}
    monkeypatch.setattr(f"{__name__}.attributes_read", lambda: names)
    assert "optim.grad_clip" in unread_keys()
