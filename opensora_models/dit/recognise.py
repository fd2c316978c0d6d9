"""What a DiT's weights say about its config."""

from typing import Any

from opensora_models.layers.transformer_shapes import OUT_WEIGHT, PATCH_WEIGHT, Shapes, common_keys, vector_keys

NEEDED = frozenset(
    {PATCH_WEIGHT, OUT_WEIGHT, "blocks.0.adaLN_modulation.1.weight", "final_layer.adaLN_modulation.1.weight"}
)
NOT_DIT = "temp_embed"
"""A table that Latte's authors publish with their weights, and that DiT has not."""


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    Heads leave no trace in shapes, nor does no_temporal_pos_emb: they keep the recipe's values. Latte's blocks are DiT's,
    so Latte weights that were trained here or by Open-Sora pass for a DiT's; those of its authors do not.
    """
    if not shapes.keys() >= NEEDED or NOT_DIT in shapes:
        return None
    return {"type": "dit", **common_keys(shapes, "learn_sigma"), **vector_keys(shapes)}
