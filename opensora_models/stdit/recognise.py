"""What STDiT's weights say about its config."""

from typing import Any

from opensora_models.layers.latent_shapes import Shapes, block_keys, patch_keys, text_keys


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    The number of heads and the scales of the position tables leave no trace.
    """
    if "blocks.0.attn_temp.qkv.weight" not in shapes or "fl_embedder.mlp.0.weight" in shapes:
        return None
    return {"type": "stdit", **patch_keys(shapes), **text_keys(shapes), **block_keys(shapes, "blocks")}
