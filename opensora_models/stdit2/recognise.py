"""What STDiT2's weights say about its config."""

from typing import Any

from opensora_models.layers.latent_shapes import Shapes, block_keys, patch_keys, text_keys


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    `input_sq_size` and `qk_norm_legacy` leave no trace, and the number of heads none without norms or stored frequencies.
    """
    if not {"fl_embedder.mlp.0.weight", "blocks.0.attn_temp.qkv.weight"} <= shapes.keys():
        return None
    return {
        "type": "stdit2",
        **patch_keys(shapes),
        **text_keys(shapes),
        **block_keys(shapes, "blocks"),
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
    }
