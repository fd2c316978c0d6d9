"""OSR52x: what makes a denoiser faster or smaller, and what it goes together with."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, rule
from schemas.denoiser import MMDiTConfig
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


@rule(
    "OSR521",
    SampleRecipe,
    reason="A ring puts the shares of a softmax together from their row sums, which it has from PyTorch's kernel.",
    fix='Use sampling.attention = "auto", or parallel.sequence_parallelism_mode = "all_to_all".',
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        attention = "flash"
        [parallel]
        plugin = "hybrid"
        sp_size = 2
        sequence_parallelism_mode = "ring_attn"
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        attention = "flash"
        [parallel]
        plugin = "hybrid"
        sp_size = 2
    """,
)
def rings_have_their_own_attention(recipe: SampleRecipe) -> Iterator[Finding]:
    """attention = flash or flex goes without ring_attn."""
    chosen, parallel = recipe.sampling.attention, recipe.parallel
    ring = parallel.sp_size > 1 and parallel.sequence_parallelism_mode == "ring_attn"
    if ring and chosen in ("flash", "flex"):
        message = f'sampling.attention = "{chosen}" is not read with parallel.sequence_parallelism_mode = "ring_attn".'
        yield Finding((("sampling", "attention"), ("parallel", "sequence_parallelism_mode")), message)


@rule(
    "OSR522",
    SampleRecipe,
    reason="Tensor parallelism divides matrices in full precision; those in 8 bits have a scale for each row of the whole.",
    fix="Leave fp8_weights out (each process has its part alone), or use sp_size in place of tp_size.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        fp8_weights = true
        [parallel]
        plugin = "hybrid"
        tp_size = 2
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        fp8_weights = true
        [parallel]
        plugin = "hybrid"
        sp_size = 2
    """,
)
def eight_bit_matrices_are_whole(recipe: SampleRecipe) -> Iterator[Finding]:
    """fp8_weights goes without tp_size."""
    if recipe.sampling.fp8_weights and recipe.parallel.tp_size > 1:
        message = (
            f"sampling.fp8_weights = true with parallel.tp_size = {recipe.parallel.tp_size}: nothing divides them."
        )
        yield Finding((("sampling", "fp8_weights"), ("parallel", "tp_size")), message)


@rule(
    "OSR523",
    SampleRecipe,
    reason="The step cache compares what the first double block does, and every process has to come to the same end.",
    fix="Leave cache_threshold out, or share the work out otherwise (prompts, guidance branches, tp_size).",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        cache_threshold = 0.1
        [parallel]
        plugin = "hybrid"
        sp_size = 2
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        cache_threshold = 0.1
    """,
)
def step_caches_see_whole_clips(recipe: SampleRecipe) -> Iterator[Finding]:
    """cache_threshold needs model.depth above 0 and all tokens in one process."""
    threshold = recipe.sampling.cache_threshold
    if not threshold:
        return
    if recipe.parallel.sp_size > 1:
        message = f"sampling.cache_threshold = {threshold} with parallel.sp_size = {recipe.parallel.sp_size}."
        yield Finding((("sampling", "cache_threshold"), ("parallel", "sp_size")), message)
    if not isinstance(recipe.model, MMDiTConfig):
        message = f'sampling.cache_threshold = {threshold}, but model.type = "{recipe.model.type}": only MMDiT has a step cache.'
        yield Finding((("sampling", "cache_threshold"), ("model", "type")), message)
    elif not recipe.model.depth:
        message = f"sampling.cache_threshold = {threshold}, but model.depth = 0: there is no double block."
        yield Finding((("sampling", "cache_threshold"), ("model", "depth")), message)
