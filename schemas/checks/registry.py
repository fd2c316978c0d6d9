"""How a rule between fields is written: a function of the validated recipe that yields problems, with a code."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

from schemas.recipes import AnyRecipe

Key = tuple[str, ...]
"""Names of tables and of the key, from the top."""
Severity = Literal["error", "warning"]
"""A warning is shown and lets the recipe pass."""


class Problem(NamedTuple):
    """What a rule found: the keys involved (the one to change first), the message, and this case's way out."""

    code: str
    keys: tuple[Key, ...]
    message: str
    help: str
    severity: Severity = "error"


class Finding(NamedTuple):
    """What a rule's function yields; the registry adds the code."""

    keys: tuple[Key, ...]
    message: str
    help: str | None = None


class Rule(NamedTuple):
    """A rule: its code, why it exists in one line, how a recipe that breaks it is mended, and the kinds it looks at.

    `wrong` and `right` are recipes: the first breaks this rule and no other, the second is fine.
    """

    code: str
    name: str
    reason: str
    fix: str
    kinds: tuple[type[Any], ...]
    function: Callable[[Any], Iterator[Finding]]
    wrong: str
    right: str
    severity: Severity

    def problems(self, recipe: AnyRecipe) -> Iterator[Problem]:
        """Yield what is wrong with a recipe; nothing for kinds that the rule is not about."""
        if isinstance(recipe, self.kinds):
            for finding in self.function(recipe):
                yield Problem(self.code, finding.keys, finding.message, finding.help or self.fix, self.severity)


RULES: dict[str, Rule] = {}


Check = TypeVar("Check", bound=Callable[[Any], Iterator[Finding]])


def rule(
    code: str, *kinds: type[Any], reason: str, fix: str, wrong: str, right: str, severity: Severity = "error"
) -> Callable[[Check], Check]:
    """Register a function as the rule `code`, for recipes of the given classes."""

    def register(function: Check) -> Check:
        if code in RULES:
            raise AssertionError(f"two rules have the code {code}")
        name = function.__name__.replace("_", " ")
        RULES[code] = Rule(code, name, reason, fix, kinds, function, _lines(wrong), _lines(right), severity)
        return function

    return register


def _lines(example: str) -> str:
    """Take off the indentation of an example that stands among code."""
    return "\n".join(line.strip() for line in example.strip().split("\n")) + "\n"
