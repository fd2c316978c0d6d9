"""OSR52x: what compiled blocks go together with."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, rule
from schemas.recipes import RunRecipe, SampleRecipe, VaeTrainRecipe


@rule(
    "OSR520",
    RunRecipe,
    SampleRecipe,
    reason="The blocks of a denoiser are compiled, and none that talks to other processes in the middle.",
    fix="Leave compile out, or share the work out by clips (sizes of 1; plugins such as fsdp are fine).",
    wrong="""
        _base_ = "stage1"
        [memory]
        compile = true
        [parallel]
        plugin = "hybrid"
        sp_size = 4
    """,
    right="""
        _base_ = "stage1"
        [memory]
        compile = true
        [parallel]
        plugin = "fsdp"
    """,
)
def compiled_blocks_stand_alone(recipe: RunRecipe | SampleRecipe) -> Iterator[Finding]:
    """compile is for denoisers, without tp_size and sp_size."""
    table = "sampling" if isinstance(recipe, SampleRecipe) else "memory"
    compiles = recipe.sampling.compile if isinstance(recipe, SampleRecipe) else recipe.memory.compile
    if not compiles:
        return
    if isinstance(recipe, VaeTrainRecipe):
        message = "memory.compile = true, but an autoencoder has no blocks that could share a graph."
        yield Finding((("memory", "compile"), ("kind",)), message, "Leave compile out.")
        return
    for size in ("tp_size", "sp_size"):
        if (processes := getattr(recipe.parallel, size)) > 1:
            message = (
                f"{table}.compile = true with parallel.{size} = {processes}: its blocks exchange features or tokens."
            )
            yield Finding(((table, "compile"), ("parallel", size)), message)
