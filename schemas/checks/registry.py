"""How a rule between fields is written: a function of the validated recipe that yields problems, with a code."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from schemas.recipes import AnyRecipe

Key = tuple[str, ...]
"""Names of tables and of the key, from the top."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a rule found: the keys involved (the one to change first), the message, and this case's way out."""

    code: str
    keys: tuple[Key, ...]
    message: str
    help: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule's function yields; the registry adds the code."""

    keys: tuple[Key, ...]
    message: str
    help: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its code, why it exists in one line, how a recipe that breaks it is mended, and the kinds it looks at."""

    code: str
    name: str
    reason: str
    fix: str
    kinds: tuple[type[Any], ...]
    function: Callable[[Any], Iterator[Finding]]

    def problems(self, recipe: AnyRecipe) -> Iterator[Problem]:
        """Yield what is wrong with a recipe; nothing for kinds that the rule is not about."""
        if isinstance(recipe, self.kinds):
            for finding in self.function(recipe):
                yield Problem(self.code, finding.keys, finding.message, finding.help or self.fix)


RULES: dict[str, Rule] = {}


Check = TypeVar("Check", bound=Callable[[Any], Iterator[Finding]])


def rule(code: str, *kinds: type[Any], reason: str, fix: str) -> Callable[[Check], Check]:
    """Register a function as the rule `code`, for recipes of the given classes."""

    def register(function: Check) -> Check:
        if code in RULES:
            raise AssertionError(f"two rules have the code {code}")
        name = function.__name__.replace("_", " ")
        RULES[code] = Rule(code, name, reason, fix, kinds, function)
        return function

    return register
