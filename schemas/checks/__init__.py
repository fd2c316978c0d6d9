"""Rules between fields, each with a code: 1xx models, 2xx data, 3xx sampling, 4xx optimization, 5xx processes."""

from schemas.checks import (
    autoencoder,
    buckets,
    compiling,
    data,
    looks,
    memory,
    model,
    optim,
    parallel,
    sampling,
    splitting,
    text,
)
from schemas.checks.registry import RULES, Problem, Rule
from schemas.recipes import AnyRecipe

__all__ = [
    "RULES",
    "Problem",
    "Rule",
    "autoencoder",
    "buckets",
    "compiling",
    "data",
    "looks",
    "memory",
    "model",
    "optim",
    "parallel",
    "run_checks",
    "sampling",
    "splitting",
    "text",
]


def run_checks(recipe: AnyRecipe) -> list[Problem]:
    """Return everything that any rule finds wrong with a valid recipe, in the order of the codes."""
    return [problem for _, rule in sorted(RULES.items()) for problem in rule.problems(recipe)]
