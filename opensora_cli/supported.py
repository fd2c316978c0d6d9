"""Refusing what this version cannot do: a job never runs on with a setting that it would ignore."""

from opensora_cli.distributed.stage import sharing_stage
from opensora_cli.extras import require_colossalai
from schemas.errors import OsoraError
from schemas.recipes import AnyRecipe, RunRecipe, SampleRecipe


def check_supported(recipe: AnyRecipe) -> None:
    """Raise OsoraError if the recipe spreads a model in a way that this version has not."""
    if isinstance(recipe, RunRecipe | SampleRecipe):
        _check_spread(recipe)
        if recipe.parallel.engine == "colossalai":
            require_colossalai()


def _check_spread(recipe: RunRecipe | SampleRecipe) -> None:
    config = recipe.parallel
    if config.pp_size > 1:
        raise OsoraError(
            "parallel.pp_size: this version of osora shares out clips, tokens, features and guidance branches, not blocks. "
            "To run without: --set parallel.pp_size=1"
        )
    if isinstance(recipe, SampleRecipe) and sharing_stage(config) == 3:
        raise OsoraError(
            "parallel: zero3 and fsdp share out the weights of processes that take their steps together, and in sampling "
            'each goes at its own pace. Use --set parallel.plugin=hybrid with parallel.tp_size for less memory, or "none".'
        )
