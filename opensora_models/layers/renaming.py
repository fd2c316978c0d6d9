"""Another library's state-dict layout: a table of names, and the few tensors that differ in shape."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]
"""Pattern and replacement, applied in order; a replacement with `{q,k,v}` stands for three tensors stacked in ours."""
STACKED = "{q,k,v}"


def renamed(key: str, rules: Rules) -> str:
    """Return the other library's name of one of our keys."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def to_layout(state: Mapping[str, Tensor], rules: Rules, linear: str) -> StateDict:
    """Return our weights in the other layout; `linear` tells which of its keys hold a 1x1 convolution as a matrix."""
    converted: StateDict = {}
    for key, tensor in state.items():
        name = renamed(key, rules)
        parts = dict(zip("qkv", tensor.chunk(3), strict=True)) if STACKED in name else {"": tensor}
        for part, value in parts.items():
            other = name.replace(STACKED, part)
            flat = re.search(linear, other) and value.dim() > 2
            converted[other] = value.flatten(1).clone() if flat else value.clone()
    return converted


def from_layout(state: Mapping[str, Tensor], own: Mapping[str, Tensor], rules: Rules) -> StateDict:
    """Return the other layout's weights as ours; `own` has our keys and shapes. Keys that no rule reaches stay as they are.

    Nothing is dropped: what does not fit is found by loading strictly.
    """
    left = dict(state)
    converted: StateDict = {}
    for key, tensor in own.items():
        name = renamed(key, rules)
        names = [name.replace(STACKED, part) for part in "qkv"] if STACKED in name else [name]
        if all(one in left for one in names):
            value = torch.cat([left.pop(one) for one in names]) if len(names) > 1 else left.pop(name)
            converted[key] = value.view(tensor.shape) if value.numel() == tensor.numel() else value
    return converted | left
