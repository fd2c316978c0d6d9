"""Flux's weight layout and Open-Sora 2.0's: the same function, other names and another order of rows.

Flux: q, k, v in one projection; rotary pairs are neighbours. Open-Sora 2.0: three projections; pairs are half a head apart.
"""

import re
from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from torch import Tensor

from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError

StateDict = dict[str, Tensor]

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) (cond_in\.)", "model.cond_embed"),
    (r"(?:missing|unexpected) (guidance_in\.)", "model.guidance_embed"),
    (r"(?:missing|unexpected) (double_blocks\.\d+\.)img_mod", "model.depth"),
    (r"(?:missing|unexpected) (single_blocks\.\d+\.)modulation", "model.depth_single_blocks"),
    (r"(?:missing|unexpected) (.*\.(?:qkv|[qkv]_proj|linear1|v_mlp)\.)weight", "model.fused_qkv"),
    (r"(?:missing|unexpected) double_blocks.*attn\.(?:qkv|[qkv]_proj)\.bias", "model.qkv_bias"),
    (r"shape\[0\] img_in\.", "model.hidden_size"),
    (r"shape\[1\] cond_in\.", "model.patch_size"),
    (r"shape\[1\] img_in\.", "model.in_channels"),
    (r"shape\[1\] txt_in\.", "model.context_in_dim"),
    (r"shape\[1\] vector_in\.in_layer", "model.vec_in_dim"),
    (r"shape\[0\] .*_norm\.scale", "model.num_heads"),
    (r"shape\[0\] .*(?:_mlp\.0|v_mlp|linear1)\.", "model.mlp_ratio"),
)
"""What a difference between a file and the model looks like (see weights.Misfit.likely_keys), and the key behind it."""

LAYOUT_KEYS = {"fused_qkv", "use_liger_rope"}
FREE_KEYS = LAYOUT_KEYS | {"from_pretrained", "allow_missing", "cond_embed", "guidance_embed"}


def convert_layout(state: Mapping[str, Tensor], source: MMDiTConfig, target: MMDiTConfig) -> StateDict:
    """Return the weights of a `source` model in the layout of a `target` model that computes the same.

    Raises OsoraError where the two configs differ in more than layout (and parts that a model may have or not).
    """
    other = [key for key, value in source.model_dump(exclude=FREE_KEYS).items() if getattr(target, key) != value]
    if other:
        raise OsoraError(
            f"model.{other[0]}: weights keep their sizes; only {', '.join(sorted(LAYOUT_KEYS))} can change."
        )
    converted = split_projections(state, source.hidden_size) if source.fused_qkv else dict(state)
    if source.use_liger_rope != target.use_liger_rope:
        order = pairs_to_halves if target.use_liger_rope else halves_to_pairs
        converted = reorder_heads(converted, source.num_heads, order)
    return fuse_projections(converted) if target.fused_qkv else converted


def pairs_to_halves(rows: Tensor) -> Tensor:
    """Reorder axis 1, the features of a head: even positions first, then odd ones."""
    return rearrange(rows, "h (k pair) ... -> h (pair k) ...", pair=2)


def halves_to_pairs(rows: Tensor) -> Tensor:
    """Reorder axis 1, the features of a head: first and second half take turns."""
    return rearrange(rows, "h (pair k) ... -> h (k pair) ...", pair=2)


def reorder_heads(state: Mapping[str, Tensor], num_heads: int, order: Callable[[Tensor], Tensor]) -> StateDict:
    """Reorder the features of every query and key head, and of their norms; attention does not see the difference."""
    converted: StateDict = {}
    for key, tensor in state.items():
        if re.search(r"\.[qk]_proj\.(weight|bias)$", key):
            converted[key] = order(tensor.unflatten(0, (num_heads, -1))).flatten(0, 1)
        elif re.search(r"\.(query|key)_norm\.scale$", key):
            converted[key] = order(tensor[None])[0]
        else:
            converted[key] = tensor
    return converted


def split_projections(state: Mapping[str, Tensor], hidden_size: int) -> StateDict:
    """Return Flux's qkv as q_proj, k_proj, v_proj, and linear1 as q_proj, k_proj, v_mlp."""
    converted: StateDict = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"(.*)\.(qkv|linear1)\.(weight|bias)", key):
            prefix, fused, kind = match.groups()
            q, k, rest = tensor.tensor_split([hidden_size, 2 * hidden_size])
            last = "v_proj" if fused == "qkv" else "v_mlp"
            parts = {"q_proj": q, "k_proj": k, last: rest}
            converted |= {f"{prefix}.{name}.{kind}": part.clone() for name, part in parts.items()}
        else:
            converted[key] = tensor
    return converted


def fuse_projections(state: Mapping[str, Tensor]) -> StateDict:
    """Return q_proj, k_proj, v_proj as Flux's qkv, and q_proj, k_proj, v_mlp as linear1."""
    converted: StateDict = {}
    for key, tensor in state.items():
        match = re.fullmatch(r"(.*)\.(q_proj|k_proj|v_proj|v_mlp)\.(weight|bias)", key)
        if match is None:
            converted[key] = tensor
        elif match[2] in {"v_proj", "v_mlp"}:
            prefix, last, kind = match.groups()
            fused = "qkv" if last == "v_proj" else "linear1"
            parts = [state[f"{prefix}.{name}.{kind}"] for name in ("q_proj", "k_proj", last)]
            converted[f"{prefix}.{fused}.{kind}"] = torch.cat(parts)
    return converted


def qkv_is_fused(keys: Mapping[str, object]) -> bool:
    """Whether weights have Flux's single projection."""
    return any(key.endswith((".qkv.weight", ".linear1.weight")) for key in keys)
