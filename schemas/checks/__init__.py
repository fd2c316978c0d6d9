"""Rules between fields, each with a code: 1xx models, 2xx data, 3xx sampling, 4xx optimization, 5xx processes, 6xx machines."""

from schemas.checks import (
    autoencoder,
    buckets,
    data,
    engine,
    families,
    looks,
    lora,
    machine,
    memory,
    model,
    optim,
    parallel,
    sampling,
    speed,
    splitting,
    text,
)
from schemas.checks.registry import MACHINE_RULES, RULES, MachineRule, Problem, Rule
from schemas.machine import Machine
from schemas.recipes import AnyRecipe

__all__ = [
    "MACHINE_RULES",
    "RULES",
    "MachineRule",
    "Problem",
    "Rule",
    "autoencoder",
    "buckets",
    "data",
    "engine",
    "families",
    "looks",
    "lora",
    "machine",
    "memory",
    "model",
    "optim",
    "parallel",
    "run_checks",
    "run_machine_checks",
    "sampling",
    "speed",
    "splitting",
    "text",
]


def run_checks(recipe: AnyRecipe) -> list[Problem]:
    """Return everything that any rule finds wrong with a valid recipe, in the order of the codes."""
    return [problem for _, rule in sorted(RULES.items()) for problem in rule.problems(recipe)]


def run_machine_checks(recipe: AnyRecipe, machine: Machine) -> list[Problem]:
    """Return everything that keeps a valid recipe from running well on a machine, in the order of the codes."""
    return [problem for _, rule in sorted(MACHINE_RULES.items()) for problem in rule.problems(recipe, machine)]
