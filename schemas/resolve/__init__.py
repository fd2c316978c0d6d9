"""The recipe language: layers of TOML become one validated recipe that knows where every value comes from."""

from schemas.resolve.diagnostics import Diagnostic, Place, RecipeError
from schemas.resolve.nodes import UNSET, Event
from schemas.resolve.overrides import Unsetting
from schemas.resolve.packaged import packaged_recipes
from schemas.resolve.resolved import Resolved
from schemas.resolve.resolver import resolve

__all__ = [
    "UNSET",
    "Diagnostic",
    "Event",
    "Place",
    "RecipeError",
    "Resolved",
    "Unsetting",
    "packaged_recipes",
    "resolve",
]
