"""OSR5xx: the sizes of the mesh must suit the plugin, the model and the number of processes."""

from collections.abc import Iterator

from schemas.checks.model import denoisers
from schemas.checks.registry import Finding, rule
from schemas.denoiser import MMDiTConfig
from schemas.parallel import ParallelConfig, SamplingParallelConfig
from schemas.recipes import RunRecipe, SampleRecipe, TrainRecipe

Spread = RunRecipe | SampleRecipe
SIZES = ("tp_size", "sp_size", "pp_size")
COLOSSALAI = ("ddp", "zero1", "zero2", "hybrid")
"""Plugins of ColossalAI's Booster that have a counterpart here."""


def world_size_problem(config: ParallelConfig, processes: int) -> str | None:
    """Return what is wrong with running `config` on so many processes, which no recipe knows; None if nothing is."""
    needed = config.together
    if processes % needed:
        names = [*SIZES, *(["cfg_size"] if isinstance(config, SamplingParallelConfig) else [])]
        factors = " x ".join(str(getattr(config, name)) for name in names)
        product = f"parallel.{' x '.join(names)} = {factors} = {needed}"
        return f"{product} does not divide the {processes} processes. Start a multiple of {needed}, or lower the sizes."
    equals = processes // (config.tp_size * config.pp_size)
    if config.shard_size and equals % config.shard_size:
        return (
            f"parallel.shard_size = {config.shard_size} does not divide the {equals} processes with equal weights "
            f"({processes} / tp_size / pp_size). Choose a divisor, or 0 for all."
        )
    return None


@rule(
    "OSR501",
    RunRecipe,
    SampleRecipe,
    reason="Only the hybrid plugin shares out layers, tokens or blocks; ddp and the zero plugins share out clips alone.",
    fix='Set plugin = "hybrid" (and zero_stage), or the sizes to 1.',
    wrong="""
        _base_ = "stage1"
        [parallel]
        plugin = "zero2"
        sp_size = 4
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        plugin = "hybrid"
        zero_stage = 2
        sp_size = 4
    """,
)
def sizes_need_the_hybrid_plugin(recipe: Spread) -> Iterator[Finding]:
    """tp_size, sp_size and pp_size above 1 need plugin = "hybrid"."""
    config = recipe.parallel
    above = [size for size in SIZES if getattr(config, size) > 1]
    if above and config.plugin != "hybrid":
        given = f"parallel.{above[0]} = {getattr(config, above[0])}"
        message = f'{given}, but parallel.plugin = "{config.plugin}" shares out clips alone.'
        yield Finding((("parallel", above[0]), ("parallel", "plugin")), message)


@rule(
    "OSR502",
    RunRecipe,
    SampleRecipe,
    reason="zero1 and zero2 name their stage themselves; zero_stage is the hybrid plugin's.",
    fix='Set plugin = "hybrid", or remove zero_stage.',
    wrong="""
        _base_ = "stage1"
        [parallel]
        plugin = "ddp"
        zero_stage = 2
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        plugin = "zero2"
    """,
)
def stages_need_the_hybrid_plugin(recipe: Spread) -> Iterator[Finding]:
    """zero_stage above 0 needs plugin = "hybrid"."""
    config = recipe.parallel
    if config.zero_stage and config.plugin != "hybrid":
        message = f'parallel.zero_stage = {config.zero_stage} is not read with parallel.plugin = "{config.plugin}".'
        yield Finding((("parallel", "zero_stage"), ("parallel", "plugin")), message)


@rule(
    "OSR503",
    TrainRecipe,
    SampleRecipe,
    reason="Tensor parallelism shares out whole heads; swapping tokens for heads (all_to_all) shares out what is left of them.",
    fix='Choose sizes whose product divides model.num_heads, or sequence_parallelism_mode = "ring_attn".',
    wrong="""
        _base_ = "stage1"
        [parallel]
        plugin = "hybrid"
        tp_size = 5
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        plugin = "hybrid"
        tp_size = 8  # 24 heads, three each
    """,
)
def heads_can_be_shared_out(recipe: TrainRecipe | SampleRecipe) -> Iterator[Finding]:
    """num_heads is a multiple of tp_size, and of tp_size x sp_size with all_to_all."""
    config = recipe.parallel
    swaps = config.sequence_parallelism_mode == "all_to_all"
    shares = config.tp_size * (config.sp_size if swaps else 1)
    for at, model, _, _ in denoisers(recipe):
        heads = model.num_heads
        if heads % shares:
            sizes = "tp_size x sp_size" if swaps and config.sp_size > 1 else "tp_size"
            key = "sp_size" if heads % config.tp_size == 0 else "tp_size"
            message = f"parallel.{sizes} = {shares} does not divide {'.'.join(at)}.num_heads = {heads}."
            yield Finding((("parallel", key), (*at, "num_heads")), message)


@rule(
    "OSR504",
    TrainRecipe,
    SampleRecipe,
    reason="Every stage of a pipeline has at least one block.",
    fix="Lower parallel.pp_size.",
    wrong="""
        _base_ = "tiny/train"
        [parallel]
        plugin = "hybrid"
        pp_size = 8
    """,
    right="""
        _base_ = "tiny/train"
        [parallel]
        plugin = "hybrid"
        pp_size = 2
    """,
)
def every_stage_has_a_block(recipe: TrainRecipe | SampleRecipe) -> Iterator[Finding]:
    """pp_size is at most the number of blocks."""
    if not isinstance(recipe.model, MMDiTConfig):
        return
    stages, blocks = recipe.parallel.pp_size, recipe.model.depth + recipe.model.depth_single_blocks
    if stages > max(1, blocks):
        message = f"parallel.pp_size = {stages}, but the denoiser has depth + depth_single_blocks = {blocks} blocks."
        yield Finding((("parallel", "pp_size"), ("model", "depth"), ("model", "depth_single_blocks")), message)


@rule(
    "OSR505",
    TrainRecipe,
    SampleRecipe,
    severity="warning",
    reason="The tokens of text and picture are shared out; with a remainder, some processes have one more, and the others wait.",
    fix="Make text.t5.max_length a multiple of parallel.sp_size.",
    wrong="""
        _base_ = "stage1"
        text.t5.max_length = 77
        [parallel]
        plugin = "hybrid"
        sp_size = 4
    """,
    right="""
        _base_ = "stage1"
        text.t5.max_length = 80
        [parallel]
        plugin = "hybrid"
        sp_size = 4
    """,
)
def text_can_be_shared_out(recipe: TrainRecipe | SampleRecipe) -> Iterator[Finding]:
    """text.t5.max_length is a multiple of sp_size."""
    tokens, size = recipe.text.t5.max_length, recipe.parallel.sp_size
    if tokens % size:
        message = f"text.t5.max_length = {tokens} is no multiple of parallel.sp_size = {size}."
        near = tokens // size * size
        options = " or ".join(str(count) for count in (near, near + size) if count)
        yield Finding((("text", "t5", "max_length"), ("parallel", "sp_size")), message, f"Use {options}.")


@rule(
    "OSR506",
    RunRecipe,
    SampleRecipe,
    reason="fsdp and zero3 are PyTorch's own; ColossalAI's Booster has ddp, zero1, zero2 and hybrid.",
    fix='Set engine = "torch", or plugin to one of "ddp", "zero1", "zero2", "hybrid".',
    wrong="""
        _base_ = "stage1"
        [parallel]
        engine = "colossalai"
        plugin = "fsdp"
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        engine = "torch"
        plugin = "fsdp"
    """,
)
def the_engine_has_the_plugin(recipe: Spread) -> Iterator[Finding]:
    """engine = "colossalai" needs one of its plugins."""
    config = recipe.parallel
    if config.engine == "colossalai" and config.plugin not in COLOSSALAI:
        message = f'parallel.engine = "colossalai" has no parallel.plugin = "{config.plugin}".'
        yield Finding((("parallel", "plugin"), ("parallel", "engine")), message)


@rule(
    "OSR507",
    RunRecipe,
    SampleRecipe,
    reason="shard_size says how many processes share one copy of the states; ddp and zero_stage = 0 share out none.",
    fix="Choose a plugin that shares out states (zero1, zero2, zero3, fsdp, or hybrid with zero_stage), or shard_size = 0.",
    wrong="""
        _base_ = "stage1"
        [parallel]
        plugin = "ddp"
        shard_size = 8
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        plugin = "fsdp"
        shard_size = 8
    """,
)
def shard_sizes_need_sharding(recipe: Spread) -> Iterator[Finding]:
    """shard_size needs a plugin that shares out states."""
    config = recipe.parallel
    shares = config.zero_stage > 0 if config.plugin == "hybrid" else config.plugin not in ("none", "ddp")
    if config.shard_size and not shares:
        message = f'parallel.shard_size = {config.shard_size} is not read with parallel.plugin = "{config.plugin}".'
        yield Finding((("parallel", "shard_size"), ("parallel", "plugin")), message)


@rule(
    "OSR508",
    SampleRecipe,
    reason="A process without a branch would wait for the others; distilled models have one, t2v has two, references make three.",
    fix="Lower parallel.cfg_size, and share out tokens (sp_size), features (tp_size) or prompts.",
    wrong="""
        _base_ = "sample/256px"
        [parallel]
        cfg_size = 3
    """,
    right="""
        _base_ = "sample/256px"
        [parallel]
        cfg_size = 2
    """,
)
def every_process_has_a_branch(recipe: SampleRecipe) -> Iterator[Finding]:
    """cfg_size is at most the number of guidance branches."""
    processes, branches = recipe.parallel.cfg_size, recipe.branches
    if processes > branches:
        why = "model.guidance_embed = true" if branches == 1 else f'sampling.cond_type = "{recipe.condition}"'
        message = f"parallel.cfg_size = {processes}, but {why} has {branches} guidance branch{'es' * (branches > 1)}."
        yield Finding((("parallel", "cfg_size"), ("sampling", "cond_type"), ("model", "guidance_embed")), message)
