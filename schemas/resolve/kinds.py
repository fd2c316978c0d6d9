"""A recipe's `kind`: reading it before anything else, and naming the command that takes it."""

from difflib import get_close_matches

from schemas.recipes import RECIPES
from schemas.resolve.diagnostics import Diagnostic, Place
from schemas.resolve.literals import write_value
from schemas.resolve.nodes import UNSET, Leaf, Table
from schemas.resolve.sources import Source

COMMANDS = {kind: f"osora {kind}" for kind in RECIPES}
ALLOWED = ", ".join(f'"{kind}"' for kind in RECIPES)


def kind_of(tree: Table, wanted: str | None, file: Source) -> tuple[str | None, Diagnostic | None]:
    """Return the kind to validate as, and what is wrong with the one given.

    A recipe of another kind than the caller can run is validated no further: it would only repeat that.
    """
    node = tree.items.get("kind")
    if not isinstance(node, (Leaf, Table)) or (isinstance(node, Leaf) and node.value is UNSET):
        help_text = f"Add `kind = ...` above all tables; it is one of {ALLOWED}."
        return wanted, Diagnostic("OSR004", "`kind` is missing.", Place(file.name), help=help_text)
    value = node.value if isinstance(node, Leaf) else {}
    if not isinstance(value, str) or value not in RECIPES:
        close = get_close_matches(str(value), RECIPES, 1)
        hint = f'Did you mean "{close[0]}"?' if close else None
        message = f"`kind = {write_value(value)}`: must be one of {ALLOWED}."
        return wanted, Diagnostic("OSR005", message, node.history[-1].place, help=hint)
    if wanted is not None and value != wanted:
        message = f'this recipe is of kind "{value}"; `{COMMANDS[wanted]}` takes kind "{wanted}".'
        return None, Diagnostic("OSR006", message, node.history[-1].place, help=f"Run `{COMMANDS[value]} {file.name}`.")
    return value, None


def recipe_kinds(classes: tuple[type, ...]) -> tuple[str, ...]:
    """Return the kinds of recipe that any of some classes stands for."""
    return tuple(kind for kind, model in RECIPES.items() if issubclass(model, classes))
