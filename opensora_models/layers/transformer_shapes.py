"""What the shapes of a latent transformer's weights say about its config: the keys that the families have in common."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
PATCH_WEIGHT = "x_embedder.proj.weight"
OUT_WEIGHT = "final_layer.linear.weight"


def common_keys(shapes: Shapes, sigma: str) -> dict[str, Any]:
    """Return sizes, patch, depth of `blocks`, and `sigma`: whether a variance is predicted.

    An image model's patch embedding has no time axis: its patches are one frame deep.
    """
    hidden, in_channels, *patch = shapes[PATCH_WEIGHT]
    patch_size = (1, *patch) if len(patch) == 2 else tuple(patch)
    return {
        "in_channels": in_channels,
        "patch_size": patch_size,
        "hidden_size": hidden,
        "depth": blocks(shapes),
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / hidden,
        sigma: shapes[OUT_WEIGHT][0] == 2 * in_channels * prod(patch_size),
    }


def vector_keys(shapes: Shapes) -> dict[str, Any]:
    """Return what DiT and Latte are conditioned on; a table of classes is taken to have a row for the dropped one."""
    if "y_embedder.embedding_table.weight" in shapes:
        return {"condition": f"label_{shapes['y_embedder.embedding_table.weight'][0] - 1}"}
    return {"condition": "text", "caption_channels": shapes["y_embedder.y_proj.fc1.weight"][1]}


def blocks(shapes: Shapes) -> int:
    """Return how many numbered `blocks` there are."""
    return len({match[1] for key in shapes if (match := re.match(r"blocks\.(\d+)\.", key))})
