"""What the weights of a denoiser of Open-Sora 1.x say about its config, and what image models' weights lack to be its own."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
StateDict = dict[str, Tensor]
NULL_CAPTION = "y_embedder.y_embedding"
PATCHES = "x_embedder.proj.weight"


def count_blocks(shapes: Shapes, stack: str) -> int:
    """Return how many blocks a stack has."""
    return len({match[1] for key in shapes if (match := re.match(rf"{re.escape(stack)}\.(\d+)\.", key))})


def patch_keys(shapes: Shapes) -> dict[str, Any]:
    """Return width, channels, patch and whether the model predicts a variance; pictures' patches have one frame."""
    hidden, channels, *patch = shapes[PATCHES]
    patch = [1] * (3 - len(patch)) + patch
    values = shapes["final_layer.linear.weight"][0]
    return {
        "hidden_size": hidden,
        "in_channels": channels,
        "patch_size": tuple(patch),
        "pred_sigma": values == 2 * channels * prod(patch),
    }


def text_keys(shapes: Shapes) -> dict[str, Any]:
    """Return width and number of the text's tokens."""
    length, width = shapes[NULL_CAPTION]
    return {"caption_channels": width, "model_max_length": length}


def block_keys(shapes: Shapes, stack: str, attention: str = "attn") -> dict[str, Any]:
    """Return depth, MLP width and, where a norm or a rotation shows it, the heads of a stack of blocks."""
    hidden = shapes[PATCHES][0]
    found: dict[str, Any] = {"depth": count_blocks(shapes, stack)}
    if (fc1 := shapes.get(f"{stack}.0.mlp.fc1.weight")) is not None:
        found["mlp_ratio"] = fc1[0] / hidden
    if (norm := shapes.get(f"{stack}.0.{attention}.q_norm.weight")) is not None:
        found["num_heads"] = hidden // norm[0]
    elif "rope.freqs" in shapes:
        found["num_heads"] = hidden // (2 * shapes["rope.freqs"][0])
    return found


def without(state: Mapping[str, Tensor], computed: tuple[str, ...]) -> StateDict:
    """Return weights without what the model computes: keys that match a glob of `computed`."""
    return {key: tensor for key, tensor in state.items() if not any(fnmatchcase(key, glob) for glob in computed)}


def as_video(state: Mapping[str, Tensor], text_tokens: int) -> StateDict:
    """Return an image model's weights as a video model's, and others as they are.

    A patch gets an axis of time; the null caption is cut, or its last token repeated, to `text_tokens`.
    """
    found = dict(state)
    if PATCHES in found and found[PATCHES].dim() == 4:
        found[PATCHES] = found[PATCHES][:, :, None]
    if (null_LD := found.get(NULL_CAPTION)) is not None and len(null_LD) != text_tokens:
        more = max(text_tokens - len(null_LD), 0)
        found[NULL_CAPTION] = torch.cat([null_LD[:text_tokens], null_LD[-1:].expand(more, -1)])
    return found
