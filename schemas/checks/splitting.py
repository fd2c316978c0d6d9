"""OSR43x: doing a micro-batch in parts."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, rule
from schemas.recipes import RunRecipe, TrainRecipe


@rule(
    "OSR430",
    RunRecipe,
    reason="Halves of a micro-batch give the same gradients only where clips do not see one another, and one process at a time.",
    fix="Leave split_on_oom out, and lower the batch sizes or recompute activations instead.",
    wrong="""
        _base_ = "stage1"
        [memory]
        split_on_oom = true
        [parallel]
        plugin = "hybrid"
        sp_size = 2
    """,
    right="""
        _base_ = "stage1"
        [memory]
        split_on_oom = true
    """,
)
def splitting_changes_nothing(recipe: RunRecipe) -> Iterator[Finding]:
    """memory.split_on_oom goes with a denoiser, without dropout and without shares of one batch."""
    if not recipe.memory.split_on_oom:
        return
    if not isinstance(recipe, TrainRecipe):
        message = "memory.split_on_oom = true: an autoencoder's losses are of a batch as a whole."
        yield Finding((("memory", "split_on_oom"), ("kind",)), message)
        return
    if recipe.lora is not None and recipe.lora.lora_dropout:
        message = f"memory.split_on_oom = true with lora.lora_dropout = {recipe.lora.lora_dropout}: it draws for whole batches."
        yield Finding((("memory", "split_on_oom"), ("lora", "lora_dropout")), message, "Leave one of the two out.")
        return
    if recipe.memory.release_gradients:
        message = (
            "memory.split_on_oom = true with release_gradients: a backward pass that changes weights is not done again."
        )
        yield Finding(
            (("memory", "split_on_oom"), ("memory", "release_gradients")), message, "Leave one of the two out."
        )
        return
    for name in ("tp_size", "sp_size"):
        size = getattr(recipe.parallel, name)
        if size > 1:
            message = f"memory.split_on_oom = true with parallel.{name} = {size}: the processes of one batch would wait for ever."
            yield Finding((("memory", "split_on_oom"), ("parallel", name)), message)
            return
