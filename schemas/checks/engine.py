"""What ColossalAI's engine can be asked for."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, Key, rule
from schemas.recipes import RunRecipe, SampleRecipe, TrainRecipe, VaeTrainRecipe

_ENGINE: Key = ("parallel", "engine")


@rule(
    "OSR540",
    RunRecipe,
    SampleRecipe,
    reason="ColossalAI's Booster trains denoisers whose weights are whole or shared out by features, with AdamW.",
    fix='Set engine = "torch", which has all of it, or the key that the message names to its default.',
    wrong="""
        _base_ = "stage1"
        [parallel]
        engine = "colossalai"
        plugin = "hybrid"
        zero_stage = 2
        tp_size = 2
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        engine = "colossalai"
        plugin = "hybrid"
        zero_stage = 2
        sp_size = 2
    """,
)
def the_engine_can_do_it(recipe: RunRecipe | SampleRecipe) -> Iterator[Finding]:
    """engine = "colossalai" trains denoisers, without sharing out weights, blocks, or optimizers of shared-out layers."""
    config = recipe.parallel
    if config.engine != "colossalai":
        return
    if not isinstance(recipe, TrainRecipe):
        does = "trains autoencoders" if isinstance(recipe, VaeTrainRecipe) else "samples"
        yield Finding((_ENGINE,), f'parallel.engine = "colossalai", and a recipe of kind {recipe.kind} {does}.')
        return
    unable: dict[Key, bool] = {
        ("parallel", "shard_size"): config.shard_size > 0,
        ("parallel", "pp_size"): config.pp_size > 1,
        ("parallel", "tp_size"): config.tp_size > 1 and config.zero_stage > 0,
        ("parallel", "zero_stage"): config.zero_stage == 3,
        ("memory", "offload_optimizer"): recipe.memory.offload_optimizer,
        ("memory", "release_gradients"): recipe.memory.release_gradients,
        ("optim", "cls"): recipe.optim.cls != "AdamW",
    }
    for key in (key for key, asked in unable.items() if asked):
        beside = " with parallel.zero_stage above 0" if key[1] == "tp_size" else ""
        yield Finding((key, _ENGINE), f'parallel.engine = "colossalai" does not read {".".join(key)}{beside}.')


@rule(
    "OSR541",
    TrainRecipe,
    reason="ShardFormer has a policy for T5, and none for CLIP.",
    fix="Set text.clip.shardformer = false.",
    wrong="""
        _base_ = "stage1"
        text.clip.shardformer = true
        parallel = { engine = "colossalai", plugin = "ddp" }
    """,
    right="""
        _base_ = "stage1"
        text.t5.shardformer = true
        parallel = { engine = "colossalai", plugin = "ddp" }
    """,
)
def shardformer_knows_the_encoder(recipe: TrainRecipe) -> Iterator[Finding]:
    """text.clip.shardformer has nothing to run with."""
    if recipe.parallel.engine == "colossalai" and recipe.text.clip.shardformer:
        keys: tuple[Key, ...] = (("text", "clip", "shardformer"), _ENGINE)
        yield Finding(keys, "text.clip.shardformer = true: ShardFormer has no policy for CLIP.")
