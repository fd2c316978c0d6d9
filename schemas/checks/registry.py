"""How a rule between fields is written: a function of the validated recipe that yields problems, with a code."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

from schemas.machine import Machine
from schemas.recipes import AnyRecipe, Recipe

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


class MachineRule(NamedTuple):
    """A rule between a recipe and the machine that is to run it: as `Rule`, with a function of both.

    `machine` is the one that the wrong example is about, `on` what it is in words; `right_machine` is another where what
    the machine has depends on the recipe.
    """

    code: str
    name: str
    reason: str
    fix: str
    kinds: tuple[type[Any], ...]
    function: Callable[[Any, Machine], Iterator[Finding]]
    wrong: str
    right: str
    severity: Severity
    machine: Machine
    right_machine: Machine
    on: str

    def problems(self, recipe: AnyRecipe, machine: Machine) -> Iterator[Problem]:
        """Yield what keeps a recipe from running well on a machine; nothing for kinds that the rule is not about."""
        if isinstance(recipe, self.kinds):
            for finding in self.function(recipe, machine):
                yield Problem(self.code, finding.keys, finding.message, finding.help or self.fix, self.severity)


RULES: dict[str, Rule] = {}
MACHINE_RULES: dict[str, MachineRule] = {}


Check = TypeVar("Check", bound=Callable[[Any], Iterator[Finding]])
MachineCheck = TypeVar("MachineCheck", bound=Callable[[Any, Machine], Iterator[Finding]])


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


def machine_rule(
    code: str,
    *kinds: type[Any],
    reason: str,
    fix: str,
    wrong: str,
    right: str,
    machine: Machine,
    on: str,
    right_machine: Machine | None = None,
    severity: Severity = "error",
) -> Callable[[MachineCheck], MachineCheck]:
    """Register a function as the rule `code` between a machine and recipes of the given classes, or of all."""

    def register(function: MachineCheck) -> MachineCheck:
        if code in MACHINE_RULES:
            raise AssertionError(f"two rules have the code {code}")
        examples = _lines(wrong), _lines(right)
        name = function.__name__.replace("_", " ")
        MACHINE_RULES[code] = MachineRule(
            code,
            name,
            reason,
            fix,
            kinds or (Recipe,),
            function,
            *examples,
            severity,
            machine,
            right_machine or machine,
            on,
        )
        return function

    return register


def _lines(example: str) -> str:
    """Take off the indentation of an example that stands among code."""
    return "\n".join(line.strip() for line in example.strip().split("\n")) + "\n"
