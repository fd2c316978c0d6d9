"""Rules between fields, each with a code: 1xx model and autoencoder, 2xx data, 3xx sampling, 4xx optimization."""

from schemas.checks import data, model, optim, sampling
from schemas.checks.registry import RULES, Problem, Rule
from schemas.recipes import AnyRecipe

__all__ = ["RULES", "Problem", "Rule", "data", "model", "optim", "run_checks", "sampling"]


def run_checks(recipe: AnyRecipe) -> list[Problem]:
    """Return everything that any rule finds wrong with a valid recipe, in the order of the codes."""
    return [problem for _, rule in sorted(RULES.items()) for problem in rule.problems(recipe)]
