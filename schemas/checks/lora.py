"""OSR406, OSR48x: what adapters need of the rest of the recipe."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, rule
from schemas.recipes import TrainRecipe


@rule(
    "OSR406",
    TrainRecipe,
    reason="Adapters are shared out number by number, as PyTorch's own engine does, and not feature by feature.",
    fix='Set parallel.tp_size and pp_size to 1, and engine = "torch"; fsdp, zero1 to zero3 and sp_size go with [lora].',
    wrong="""
        _base_ = "stage1"
        model.from_pretrained = "ckpts/stage1.safetensors"
        [parallel]
        plugin = "hybrid"
        tp_size = 2
        [lora]
        r = 16
    """,
    right="""
        _base_ = "stage1"
        model.from_pretrained = "ckpts/stage1.safetensors"
        [parallel]
        plugin = "fsdp"
        [lora]
        r = 16
    """,
)
def adapters_stay_whole(recipe: TrainRecipe) -> Iterator[Finding]:
    """[lora] goes with tp_size = pp_size = 1 and engine = "torch"."""
    if recipe.lora is None:
        return
    config = recipe.parallel
    for key, usual in (("tp_size", 1), ("pp_size", 1), ("engine", "torch")):
        if getattr(config, key) != usual:
            message = f"parallel.{key} = {getattr(config, key)!r}, but adapters ([lora]) need {usual!r}."
            yield Finding((("parallel", key), ("lora",)), message)


@rule(
    "OSR480",
    TrainRecipe,
    reason="Adapters freeze all other weights: parts that the file lacks would stay as they were drawn.",
    fix="Train these parts first without [lora], or start from weights that have them.",
    wrong="""
        _base_ = "stage1"
        [model]
        from_pretrained = "ckpts/stage1.safetensors"
        cond_embed = true
        allow_missing = ["cond_in.*"]
        [condition]
        t2v = 1
        i2v_head = 1
        [lora]
        r = 16
    """,
    right="""
        _base_ = "stage1"
        [model]
        from_pretrained = "ckpts/stage1.safetensors"
        [lora]
        r = 16
    """,
)
def adapters_need_all_weights(recipe: TrainRecipe) -> Iterator[Finding]:
    """[lora] goes without model.allow_missing."""
    if recipe.lora is not None and recipe.model.allow_missing:
        missing = ", ".join(recipe.model.allow_missing)
        message = f"model.allow_missing = {missing}: [lora] would never train what starts anew."
        yield Finding((("model", "allow_missing"), ("lora",)), message)


@rule(
    "OSR481",
    TrainRecipe,
    severity="warning",
    reason="Adapters change a trained model a little; around random weights they learn nothing, and cannot be used elsewhere.",
    fix="Set model.from_pretrained to the weights that the adapters are for.",
    wrong="""
        _base_ = "stage1"
        [lora]
        r = 16
    """,
    right="""
        _base_ = "stage1"
        model.from_pretrained = "ckpts/stage1.safetensors"
        [lora]
        r = 16
    """,
)
def adapters_belong_to_weights(recipe: TrainRecipe) -> Iterator[Finding]:
    """[lora] needs model.from_pretrained."""
    if recipe.lora is not None and recipe.model.from_pretrained is None:
        yield Finding(
            (("lora",), ("model", "from_pretrained")),
            "[lora] without model.from_pretrained: random weights stay random.",
        )


@rule(
    "OSR482",
    TrainRecipe,
    reason="Weights that are shared out are gathered in the recipe's precision, which undoes what 8 bits save.",
    fix='Set parallel.plugin to "ddp", or lora.fp8_weights to false: shared out, the weights take less than 8 bits a number.',
    wrong="""
        _base_ = "stage1"
        model.from_pretrained = "ckpts/stage1.safetensors"
        parallel.plugin = "fsdp"
        [lora]
        fp8_weights = true
    """,
    right="""
        _base_ = "stage1"
        model.from_pretrained = "ckpts/stage1.safetensors"
        parallel.plugin = "ddp"
        [lora]
        fp8_weights = true
    """,
)
def weights_in_8_bits_stay_whole(recipe: TrainRecipe) -> Iterator[Finding]:
    """lora.fp8_weights goes without sharing weights out."""
    config = recipe.parallel
    shares = config.plugin not in ("none", "ddp", "hybrid") or config.zero_stage > 0 or config.sp_size > 1
    if recipe.lora is not None and recipe.lora.fp8_weights and shares:
        message = f"lora.fp8_weights is true, but parallel.plugin = {config.plugin!r} shares weights or tokens out."
        yield Finding((("lora", "fp8_weights"), ("parallel", "plugin")), message)
