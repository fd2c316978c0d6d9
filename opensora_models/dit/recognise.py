"""What a DiT's weights say about its config."""

from typing import Any

from opensora_models.layers.latent_shapes import Shapes, block_keys, patch_keys, vector_keys

MODULATION = "blocks.0.adaLN_modulation.1.weight"
LATTE_TABLE = "temp_embed"
"""The table of time that Latte's authors publish with their weights."""


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    Heads leave no trace in shapes, nor does no_temporal_pos_emb: they keep the recipe's values. Latte's blocks are DiT's,
    so Latte weights that were trained here or by Open-Sora pass for a DiT's; those of its authors do not.
    """
    if MODULATION not in shapes or LATTE_TABLE in shapes:
        return None
    return {"type": "dit", **vector_keys(shapes), **patch_keys(shapes, "learn_sigma"), **block_keys(shapes, "blocks")}
