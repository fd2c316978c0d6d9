"""What a Latte's weights say about its config."""

from typing import Any

from opensora_models.layers.transformer_shapes import OUT_WEIGHT, PATCH_WEIGHT, Shapes, common_keys, vector_keys

NEEDED = frozenset({PATCH_WEIGHT, OUT_WEIGHT, "blocks.0.adaLN_modulation.1.weight", "temp_embed"})


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    Only the weights of Latte's authors are told from a DiT's: by their table of time, `temp_embed`. Heads leave no trace.
    """
    if not shapes.keys() >= NEEDED:
        return None
    return {"type": "latte", **common_keys(shapes, "learn_sigma"), **vector_keys(shapes)}
