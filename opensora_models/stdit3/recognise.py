"""What STDiT3's weights say about its config."""

from typing import Any

from opensora_models.layers.latent_shapes import Shapes, block_keys, patch_keys, text_keys


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    `input_sq_size` leaves no trace, and the number of heads none without norms or stored frequencies.
    """
    if not {"fps_embedder.mlp.0.weight", "spatial_blocks.0.attn.qkv.weight"} <= shapes.keys():
        return None
    return {
        "type": "stdit3",
        **patch_keys(shapes),
        **text_keys(shapes),
        **block_keys(shapes, "spatial_blocks"),
        "qk_norm": "spatial_blocks.0.attn.q_norm.weight" in shapes,
    }
