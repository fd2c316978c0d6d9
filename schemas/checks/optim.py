"""OSR4xx: the schedule of the learning rate must fit the run."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, rule
from schemas.recipes import RunRecipe


@rule(
    "OSR401",
    RunRecipe,
    reason="A run that ends while it warms up never trains at optim.lr.",
    fix="Lower optim.warmup_steps or raise max_steps.",
    wrong="""
        _base_ = "stage1"
        max_steps = 100
        [optim]
        warmup_steps = 1000
    """,
    right="""
        _base_ = "stage1"
        max_steps = 10000
        [optim]
        warmup_steps = 1000
    """,
)
def warmup_ends_before_the_run(recipe: RunRecipe) -> Iterator[Finding]:
    """warmup_steps is at most max_steps."""
    if recipe.max_steps is not None and recipe.optim.warmup_steps > recipe.max_steps:
        message = f"optim.warmup_steps = {recipe.optim.warmup_steps} is more than max_steps = {recipe.max_steps}."
        yield Finding((("optim", "warmup_steps"), ("max_steps",)), message)


@rule(
    "OSR402",
    RunRecipe,
    reason="A cosine needs to know where it ends.",
    fix='Set max_steps, or optim.schedule = "constant".',
    wrong="""
        _base_ = "stage1"
        [optim]
        schedule = "cosine"
    """,
    right="""
        _base_ = "stage1"
        max_steps = 10000
        [optim]
        schedule = "cosine"
    """,
)
def cosine_knows_its_end(recipe: RunRecipe) -> Iterator[Finding]:
    """The cosine schedule needs max_steps."""
    if recipe.optim.schedule == "cosine" and recipe.max_steps is None:
        message = 'optim.schedule = "cosine" runs down to 0 at max_steps, which is not set.'
        yield Finding((("optim", "schedule"),), message)
