"""What every recipe schema shares: strictness, immutability, and what changing a field costs."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

ListPolicy = str
"""What a layer's list does to the list below: `append`, `unique` (append what is not there), or `by NAME` (tables with
the same NAME are one). A list without a policy replaces."""
Cost = Literal["breaks_resume", "needs_recache", "changes_memory", "changes_numerics"]

COST_MEANING: dict[Cost, str] = {
    "breaks_resume": "a run that was started with another value cannot be resumed",
    "needs_recache": "latents or text features that were cached with another value must be made again",
    "changes_memory": "the memory of each GPU changes",
    "changes_numerics": "losses or samples come out differently",
}


class Schema(BaseModel):
    """Base of every table in a recipe: immutable, no unknown keys, no silent coercion.

    A default that is a table is made by `model_construct()`: it needs no check, and no validator built for it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=False,
        defer_build=True,  # a command needs one kind of recipe: its validator is built when it is first used
    )


def cost(*costs: Cost) -> dict[str, Any]:
    """Return the `json_schema_extra` that records what changing a field costs."""
    return {"cost": list(costs)}


def lists(policy: ListPolicy) -> dict[str, Any]:
    """Return the `json_schema_extra` that says how the lists of several layers come together."""
    if policy not in ("append", "unique") and not policy.startswith("by "):
        raise AssertionError(f"{policy!r} is no list policy")
    return {"lists": policy}
