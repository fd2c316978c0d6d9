"""OSR46x: what training does to save memory must go together."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, Key, rule
from schemas.memory import MemoryConfig
from schemas.recipes import RunRecipe, TrainRecipe, VaeTrainRecipe

_HOW = ("grad_ckpt_every", "grad_ckpt_keep", "grad_ckpt_buffer_size")
"""Keys that say how blocks are recomputed."""


@rule(
    "OSR460",
    RunRecipe,
    severity="warning",
    reason="Without recomputing there is nothing to skip, to keep, or to move to host memory.",
    fix="Set memory.grad_checkpoint = true, or leave the key out.",
    wrong="""
        _base_ = "tiny/train"
        [memory]
        grad_ckpt_keep = "products"
    """,
    right="""
        _base_ = "tiny/train"
        [memory]
        grad_checkpoint = true
        grad_ckpt_keep = "products"
    """,
)
def recomputing_is_on_where_its_keys_are(recipe: RunRecipe) -> Iterator[Finding]:
    """grad_ckpt_every, grad_ckpt_keep and grad_ckpt_buffer_size need grad_checkpoint."""
    if recipe.memory.grad_checkpoint:
        return
    usual = MemoryConfig()
    for key in _HOW:
        if (value := getattr(recipe.memory, key)) != getattr(usual, key):
            message = f"memory.{key} = {value} has no effect: memory.grad_checkpoint is false."
            yield Finding((("memory", key), ("memory", "grad_checkpoint")), message)


@rule(
    "OSR461",
    VaeTrainRecipe,
    reason="An autoencoder recomputes all of its stages; only a denoiser's blocks are alike, so that every n-th can be picked.",
    fix='Leave grad_ckpt_every out; grad_ckpt_keep = "products" recomputes less.',
    wrong="""
        _base_ = "tiny/vae"
        [memory]
        grad_checkpoint = true
        grad_ckpt_every = 2
    """,
    right="""
        _base_ = "tiny/vae"
        [memory]
        grad_checkpoint = true
        grad_ckpt_keep = "products"
    """,
)
def autoencoders_recompute_every_stage(recipe: VaeTrainRecipe) -> Iterator[Finding]:
    """grad_ckpt_every is 1 where an autoencoder is trained."""
    if (every := recipe.memory.grad_ckpt_every) > 1:
        yield Finding(
            (("memory", "grad_ckpt_every"),), f"memory.grad_ckpt_every = {every}, but stages have no n-th block."
        )


@rule(
    "OSR462",
    RunRecipe,
    reason="A weight is updated before the other gradients are there: nothing can be summed, averaged or measured first.",
    fix="Set memory.release_gradients = false, or the other key to the value that is named.",
    wrong="""
        _base_ = "tiny/train"
        optim.grad_clip = 1.0
        memory.release_gradients = true
    """,
    right="""
        _base_ = "tiny/train"
        optim.grad_clip = 0.0
        memory.release_gradients = true
    """,
)
def released_gradients_are_not_needed_again(recipe: RunRecipe) -> Iterator[Finding]:
    """release_gradients needs grad_clip = 0, accumulation_steps = 1, plugin = "none" and moments on the device."""
    if not recipe.memory.release_gradients:
        return
    optim = recipe.optim
    needed: list[tuple[Key, object, object, str]] = [
        (("optim", "grad_clip"), optim.grad_clip, 0.0, "clipping needs the norm of all gradients"),
        (("optim", "accumulation_steps"), optim.accumulation_steps, 1, "gradients of several batches are added up"),
        (("parallel", "plugin"), recipe.parallel.plugin, "none", "gradients of several processes are averaged"),
        (("memory", "offload_optimizer"), recipe.memory.offload_optimizer, False, "the host updates in groups"),
    ]
    for key, value, wanted, why in needed:
        if value != wanted:
            message = f"memory.release_gradients with {'.'.join(key)} = {value}: {why}. It has to be {wanted}."
            yield Finding((("memory", "release_gradients"), key), message)


@rule(
    "OSR463",
    RunRecipe,
    reason="The host updates whole weights in fp32: it has no form for shards or for 8 bits, which save memory too.",
    fix="Set memory.offload_optimizer = false, or the other key to the value that is named.",
    wrong="""
        _base_ = "stage1"
        parallel.plugin = "zero2"
        memory.offload_optimizer = true
    """,
    right="""
        _base_ = "stage1"
        parallel.plugin = "ddp"
        memory.offload_optimizer = true
    """,
)
def the_host_updates_whole_weights(recipe: RunRecipe) -> Iterator[Finding]:
    """offload_optimizer needs cls = "AdamW" and a plugin that shares out no optimizer state."""
    if not recipe.memory.offload_optimizer:
        return
    offload, parallel = ("memory", "offload_optimizer"), recipe.parallel
    if recipe.optim.cls != "AdamW":
        message = f'memory.offload_optimizer with optim.cls = "{recipe.optim.cls}": it has to be "AdamW".'
        yield Finding((offload, ("optim", "cls")), message)
    if parallel.plugin not in ("none", "ddp", "hybrid"):
        message = f'memory.offload_optimizer with parallel.plugin = "{parallel.plugin}": it has to be "none", "ddp" or "hybrid".'
        yield Finding((offload, ("parallel", "plugin")), message)
    elif parallel.zero_stage:
        message = f"memory.offload_optimizer with parallel.zero_stage = {parallel.zero_stage}: it has to be 0."
        yield Finding((offload, ("parallel", "zero_stage")), message)


@rule(
    "OSR464",
    RunRecipe,
    reason="Moments of 8 bits share a scale with 256 neighbours of a row, and tensor parallelism cuts rows elsewhere.",
    fix='Set optim.cls = "AdamW", or parallel.tp_size = 1 and a larger zero_stage.',
    wrong="""
        _base_ = "stage1"
        optim.cls = "AdamW8bit"
        [parallel]
        plugin = "hybrid"
        tp_size = 2
    """,
    right="""
        _base_ = "stage1"
        optim.cls = "AdamW8bit"
        [parallel]
        plugin = "hybrid"
        zero_stage = 2
    """,
)
def blocks_of_moments_stay_whole(recipe: RunRecipe) -> Iterator[Finding]:
    """AdamW8bit needs tp_size = 1."""
    if recipe.optim.cls == "AdamW8bit" and (size := recipe.parallel.tp_size) > 1:
        message = f'optim.cls = "AdamW8bit" with parallel.tp_size = {size}: blocks of moments would be cut.'
        yield Finding((("optim", "cls"), ("parallel", "tp_size")), message)


@rule(
    "OSR465",
    RunRecipe,
    reason="A compiled block is one operation: what it computes inside cannot be kept.",
    fix='Set memory.grad_ckpt_keep = "nothing", or memory.compile = false.',
    wrong="""
        _base_ = "stage1"
        memory.compile = true
        memory.grad_ckpt_keep = "products"
    """,
    right="""
        _base_ = "stage1"
        memory.compile = true
        memory.grad_ckpt_every = 2
    """,
)
def compiled_blocks_keep_nothing(recipe: RunRecipe) -> Iterator[Finding]:
    """grad_ckpt_keep = "products" needs compile = false."""
    if recipe.memory.compile and recipe.memory.grad_checkpoint and recipe.memory.grad_ckpt_keep != "nothing":
        message = 'memory.compile with memory.grad_ckpt_keep = "products": nothing inside a compiled block is kept.'
        yield Finding((("memory", "grad_ckpt_keep"), ("memory", "compile")), message)


@rule(
    "OSR466",
    RunRecipe,
    reason="8-bit products are the GPU's own, of whole layers of a denoiser, and what is left of them is bf16.",
    fix="Set memory.fp8_linear = false, or change the other key as said.",
    wrong="""
        _base_ = "stage1"
        dtype = "fp32"
        memory.fp8_linear = true
    """,
    right="""
        _base_ = "stage1"
        dtype = "bf16"
        memory.fp8_linear = true
    """,
)
def products_in_8_bits_have_a_place(recipe: RunRecipe) -> Iterator[Finding]:
    """fp8_linear needs a denoiser without adapters, dtype = "bf16", a GPU and tp_size = 1."""
    if not recipe.memory.fp8_linear:
        return
    hindrances: list[tuple[bool, Key, str]] = [
        (isinstance(recipe, VaeTrainRecipe), ("kind",), "an autoencoder is made of convolutions"),
        (recipe.dtype != "bf16", ("dtype",), 'results are bf16, so dtype has to be "bf16"'),
        (recipe.device == "cpu", ("device",), 'a CPU has no such products: use "cuda" or "auto"'),
        (recipe.parallel.tp_size > 1, ("parallel", "tp_size"), "tensor parallelism cuts the layers"),
        (isinstance(recipe, TrainRecipe) and recipe.lora is not None, ("lora",), "adapters are too narrow for it"),
    ]
    for hinders, key, why in hindrances:
        if hinders:
            yield Finding(
                (("memory", "fp8_linear"), key), f"memory.fp8_linear = true with this {'.'.join(key)}: {why}."
            )
