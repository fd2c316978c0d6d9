"""What a PixArt's weights say about its config."""

import re
from typing import Any

from opensora_models.layers.latent_shapes import Shapes, block_keys, patch_keys, text_keys

NEEDED = frozenset({"blocks.0.cross_attn.q_linear.weight", "blocks.0.scale_shift_table", "y_embedder.y_embedding"})
TIME_ATTENTION = "blocks.0.attn_temp.qkv.weight"
"""What STDiT and STDiT2 have beside all that."""


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    Scales, base_size and, without q/k norms, heads leave no trace in shapes: they keep the recipe's values. So does
    compression that learns nothing, which has no weights.
    """
    if not shapes.keys() >= NEEDED or TIME_ATTENTION in shapes:
        return None
    config = {"type": "pixart", **patch_keys(shapes), **text_keys(shapes), **block_keys(shapes, "blocks")}
    config["multi_scale"] = "csize_embedder.mlp.0.weight" in shapes
    config["qk_norm"] = "blocks.0.attn.q_norm.weight" in shapes
    found = sorted(
        (int(match[1]), key) for key in shapes if (match := re.match(r"blocks\.(\d+)\.attn\.sr\.weight", key))
    )
    if found:
        config["kv_compress_config"] = {
            "sampling": "conv",
            "scale_factor": shapes[found[0][1]][-1],
            "kv_compress_layer": tuple(number for number, _ in found),
        }
    return config
