"""Refusing what this version would ignore: a job never runs on with a setting that nothing reads."""

from opensora_cli.extras import require_colossalai
from schemas.checks.parallel import SIZES, tables
from schemas.errors import OsoraError
from schemas.readers import unread_settings
from schemas.recipes import AnyRecipe, RunRecipe, SampleRecipe

_HARMLESS = ("parallel_ae",)
"""How work is shared out, and not what it is: without these keys, models that are whole give the same numbers."""


def check_supported(recipe: AnyRecipe) -> None:
    """Raise OsoraError if the recipe spreads a model in a way, or changes a key, that no code of this version reads."""
    if isinstance(recipe, RunRecipe | SampleRecipe):
        _check_spread(recipe)
        if recipe.parallel.engine == "colossalai":
            require_colossalai()
    settings = unread_settings(recipe)
    ignored = [key for key in settings if not any(key == name or key.startswith(f"{name}.") for name in _HARMLESS)]
    if ignored:
        fix = " ".join(f"--unset {key}" for key in ignored)
        raise OsoraError(
            f"this version of osora does not read {', '.join(ignored)} yet, so the run would not be what the recipe says. "
            f"To run without: {fix}"
        )


def _check_spread(recipe: RunRecipe | SampleRecipe) -> None:
    unable = SIZES if isinstance(recipe, SampleRecipe) else ("pp_size",)
    spread = [f"{table}.{size}" for table, config in tables(recipe) for size in unable if getattr(config, size) > 1]
    if spread:
        why = (
            "sampling works in one process"
            if isinstance(recipe, SampleRecipe)
            else "training shares out clips, tokens, features and states, not blocks"
        )
        fix = " ".join(f"--set {key}=1" for key in spread)
        raise OsoraError(f"{' and '.join(spread)}: in this version of osora {why}. To run without: {fix}")
