"""Refusing what this version would ignore: a job never runs on with a setting that nothing reads."""

from schemas.errors import OsoraError
from schemas.readers import unread_settings
from schemas.recipes import AnyRecipe

_SHARDING = ("parallel", "parallel_ae", "text.t5.shardformer", "text.clip.shardformer")
"""How states are shared out over processes: with one process there is nothing to share out, whatever they say."""


def check_supported(recipe: AnyRecipe) -> None:
    """Raise OsoraError if the recipe needs several processes, or changes a key that no code of this version reads."""
    settings = unread_settings(recipe)
    sizes = [key for key in settings if key.rsplit(".", 1)[-1] in ("tp_size", "sp_size", "pp_size")]
    if sizes:
        fix = " ".join(f"--set {key}=1" for key in sizes)
        raise OsoraError(
            f"{' and '.join(sizes)}: the recipe spreads a model over several processes; this version runs one. "
            f"On one GPU: {fix}"
        )
    ignored = [key for key in settings if not any(key == name or key.startswith(f"{name}.") for name in _SHARDING)]
    if ignored:
        fix = " ".join(f"--unset {key}" for key in ignored)
        raise OsoraError(
            f"this version of osora does not read {', '.join(ignored)} yet, so the run would not be what the recipe says. "
            f"To run without: {fix}"
        )
