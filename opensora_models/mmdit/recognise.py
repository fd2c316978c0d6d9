"""What a denoiser's weights say about its config."""

import re
from collections.abc import Mapping
from typing import Any

from opensora_models.mmdit.weights import qkv_is_fused

Shapes = Mapping[str, tuple[int, ...]]


def recognise(shapes: Shapes) -> dict[str, Any] | None:
    """Return the keys of a recipe's [model] that these shapes settle, or None for another family.

    The rotary layout leaves no trace in shapes; weights with three projections are taken for Open-Sora 2.0's, with halves.
    Neither do axes_dim, theta and, without a visual condition, patch_size: these keep the recipe's values.
    """
    if not {"img_in.weight", "txt_in.weight", "final_layer.linear.weight"} <= shapes.keys():
        return None
    hidden_size, in_channels = shapes["img_in.weight"]
    fused = qkv_is_fused(shapes)
    config: dict[str, Any] = {
        "type": "mmdit",
        "in_channels": in_channels,
        "vec_in_dim": shapes["vector_in.in_layer.weight"][1],
        "context_in_dim": shapes["txt_in.weight"][1],
        "hidden_size": hidden_size,
        "mlp_ratio": _mlp_width(shapes, hidden_size) / hidden_size,
        "num_heads": hidden_size // _head_width(shapes, hidden_size),
        "depth": _blocks(shapes, "double_blocks"),
        "depth_single_blocks": _blocks(shapes, "single_blocks"),
        "guidance_embed": "guidance_in.in_layer.weight" in shapes,
        "cond_embed": "cond_in.weight" in shapes,
        "fused_qkv": fused,
        "use_liger_rope": not fused,
    }
    if "double_blocks.0.img_mod.lin.weight" in shapes:
        config["qkv_bias"] = f"double_blocks.0.img_attn.{'qkv' if fused else 'q_proj'}.bias" in shapes
    if "cond_in.weight" in shapes:
        config["patch_size"] = round((shapes["cond_in.weight"][1] - in_channels) ** 0.5)
    return config


def _blocks(shapes: Shapes, stack: str) -> int:
    numbers = {int(match[1]) for key in shapes if (match := re.match(rf"{stack}\.(\d+)\.", key))}
    return len(numbers)


def _head_width(shapes: Shapes, hidden_size: int) -> int:
    return next((shape[0] for key, shape in shapes.items() if key.endswith("query_norm.scale")), hidden_size)


def _mlp_width(shapes: Shapes, hidden_size: int) -> int:
    if "double_blocks.0.img_mlp.0.weight" in shapes:
        return shapes["double_blocks.0.img_mlp.0.weight"][0]
    return shapes["single_blocks.0.linear2.weight"][1] - hidden_size
