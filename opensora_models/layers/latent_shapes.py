"""What the weights of a denoiser of Open-Sora 1.x say about its config."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from opensora_models.layers.published_weights import NULL_CAPTION, PATCH_WEIGHT

Shapes = Mapping[str, tuple[int, ...]]


def count_blocks(shapes: Shapes, stack: str) -> int:
    """Return how many blocks a stack has."""
    return len({match[1] for key in shapes if (match := re.match(rf"{re.escape(stack)}\.(\d+)\.", key))})


def patch_keys(shapes: Shapes, sigma: str = "pred_sigma") -> dict[str, Any]:
    """Return width, channels, patch and `sigma`, whether the model predicts a variance; pictures' patches have one frame."""
    hidden, channels, *patch = shapes[PATCH_WEIGHT]
    patch = [1] * (3 - len(patch)) + patch
    values = shapes["final_layer.linear.weight"][0]
    return {
        "hidden_size": hidden,
        "in_channels": channels,
        "patch_size": tuple(patch),
        sigma: values == 2 * channels * prod(patch),
    }


def text_keys(shapes: Shapes) -> dict[str, Any]:
    """Return width and number of the text's tokens."""
    length, width = shapes[NULL_CAPTION]
    return {"caption_channels": width, "model_max_length": length}


def vector_keys(shapes: Shapes) -> dict[str, Any]:
    """Return what a model takes one vector of; a table of classes is taken to have a row for the dropped one."""
    if (table := shapes.get("y_embedder.embedding_table.weight")) is not None:
        return {"condition": f"label_{table[0] - 1}"}
    return {"condition": "text", "caption_channels": shapes["y_embedder.y_proj.fc1.weight"][1]}


def block_keys(shapes: Shapes, stack: str, attention: str = "attn") -> dict[str, Any]:
    """Return depth, MLP width and, where a norm or a rotation shows it, the heads of a stack of blocks."""
    hidden = shapes[PATCH_WEIGHT][0]
    found: dict[str, Any] = {"depth": count_blocks(shapes, stack)}
    if (fc1 := shapes.get(f"{stack}.0.mlp.fc1.weight")) is not None:
        found["mlp_ratio"] = fc1[0] / hidden
    if (norm := shapes.get(f"{stack}.0.{attention}.q_norm.weight")) is not None:
        found["num_heads"] = hidden // norm[0]
    elif "rope.freqs" in shapes:
        found["num_heads"] = hidden // (2 * shapes["rope.freqs"][0])
    return found
