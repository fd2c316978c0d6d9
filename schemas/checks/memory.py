"""OSR46x: what training does to save memory must go together."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, rule
from schemas.memory import MemoryConfig
from schemas.recipes import RunRecipe, VaeTrainRecipe

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
