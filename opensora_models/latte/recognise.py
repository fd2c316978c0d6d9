"""What a Latte's weights say about its config."""

from typing import Any

from opensora_models.layers.latent_shapes import Shapes, block_keys, patch_keys, vector_keys


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    Only the weights of Latte's authors are told from a DiT's: by their table of time, `temp_embed`. Heads leave no trace.
    """
    if not shapes.keys() >= {"blocks.0.adaLN_modulation.1.weight", "temp_embed"}:
        return None
    return {"type": "latte", **vector_keys(shapes), **patch_keys(shapes, "learn_sigma"), **block_keys(shapes, "blocks")}
