"""The weights under the names of diffusers' FluxTransformer2DModel, both ways.

diffusers keeps Flux's rotary order (pairs are neighbours) and splits every projection, also the value and the MLP of single
blocks, which Open-Sora 2.0 keeps together. Its last modulation holds scale before shift. Checked against diffusers 0.42.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from opensora_models.mmdit.weights import StateDict
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError

NAMES = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "double_blocks.#.img_mod.lin": "transformer_blocks.#.norm1.linear",
    "double_blocks.#.txt_mod.lin": "transformer_blocks.#.norm1_context.linear",
    "double_blocks.#.img_attn.q_proj": "transformer_blocks.#.attn.to_q",
    "double_blocks.#.img_attn.k_proj": "transformer_blocks.#.attn.to_k",
    "double_blocks.#.img_attn.v_proj": "transformer_blocks.#.attn.to_v",
    "double_blocks.#.txt_attn.q_proj": "transformer_blocks.#.attn.add_q_proj",
    "double_blocks.#.txt_attn.k_proj": "transformer_blocks.#.attn.add_k_proj",
    "double_blocks.#.txt_attn.v_proj": "transformer_blocks.#.attn.add_v_proj",
    "double_blocks.#.img_attn.norm.query_norm": "transformer_blocks.#.attn.norm_q",
    "double_blocks.#.img_attn.norm.key_norm": "transformer_blocks.#.attn.norm_k",
    "double_blocks.#.txt_attn.norm.query_norm": "transformer_blocks.#.attn.norm_added_q",
    "double_blocks.#.txt_attn.norm.key_norm": "transformer_blocks.#.attn.norm_added_k",
    "double_blocks.#.img_attn.proj": "transformer_blocks.#.attn.to_out.0",
    "double_blocks.#.txt_attn.proj": "transformer_blocks.#.attn.to_add_out",
    "double_blocks.#.img_mlp.0": "transformer_blocks.#.ff.net.0.proj",
    "double_blocks.#.img_mlp.2": "transformer_blocks.#.ff.net.2",
    "double_blocks.#.txt_mlp.0": "transformer_blocks.#.ff_context.net.0.proj",
    "double_blocks.#.txt_mlp.2": "transformer_blocks.#.ff_context.net.2",
    "single_blocks.#.modulation.lin": "single_transformer_blocks.#.norm.linear",
    "single_blocks.#.q_proj": "single_transformer_blocks.#.attn.to_q",
    "single_blocks.#.k_proj": "single_transformer_blocks.#.attn.to_k",
    "single_blocks.#.norm.query_norm": "single_transformer_blocks.#.attn.norm_q",
    "single_blocks.#.norm.key_norm": "single_transformer_blocks.#.attn.norm_k",
    "single_blocks.#.linear2": "single_transformer_blocks.#.proj_out",
}
"""Module in the layout of three projections -> diffusers' module; # is a block's number."""
DIFFUSERS_MLP_RATIO, DIFFUSERS_THETA = 4.0, 10_000
_BACK = {theirs: ours for ours, theirs in NAMES.items()}
_SINGLE = re.compile(r"single_blocks\.(\d+)\.v_mlp\.(weight|bias)")


def is_diffusers(keys: Mapping[str, object]) -> bool:
    """Whether these are diffusers' names."""
    return "x_embedder.weight" in keys


def to_diffusers(state: Mapping[str, Tensor], hidden_size: int) -> StateDict:
    """Return weights with three projections and neighbouring rotary pairs under diffusers' names.

    Raises OsoraError for a module that diffusers does not have: the visual condition.
    """
    named: StateDict = {}
    for key, tensor in state.items():
        if match := _SINGLE.fullmatch(key):
            value, mlp = tensor.tensor_split([hidden_size])
            block = f"single_transformer_blocks.{match[1]}"
            named |= {f"{block}.attn.to_v.{match[2]}": value, f"{block}.proj_mlp.{match[2]}": mlp}
            continue
        name = _renamed(key, NAMES)
        if name is None:
            raise OsoraError(
                f"{key}: diffusers' Flux transformer has no such part"
                + (" (it takes no visual condition)." if key.startswith("cond_in.") else ".")
            )
        named[name] = swap_halves(tensor) if name.startswith("norm_out.") else tensor
    return named


def from_diffusers(state: Mapping[str, Tensor]) -> StateDict:
    """Return diffusers' weights with three projections and neighbouring rotary pairs. Raises OsoraError for unknown names."""
    named: StateDict = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"single_transformer_blocks\.(\d+)\.(attn\.to_v|proj_mlp)\.(weight|bias)", key):
            if match[2] == "proj_mlp":
                continue
            mlp = state.get(f"single_transformer_blocks.{match[1]}.proj_mlp.{match[3]}")
            if mlp is None:
                raise OsoraError(f"{key}: the file lacks proj_mlp of the same block. Fetch it again.")
            named[f"single_blocks.{match[1]}.v_mlp.{match[3]}"] = torch.cat([tensor, mlp])
            continue
        name = _renamed(key, _BACK)
        if name is None:
            raise OsoraError(f"{key}: not a part of diffusers' Flux transformer. Rename it, or leave it out.")
        named[name] = swap_halves(tensor) if name.startswith("final_layer.adaLN") else tensor
    return named


def diffusers_module(name: str) -> str | None:
    """Return diffusers' name of a module in the layout of three projections; None where it has none of its own."""
    key = _renamed(f"{name}.weight", NAMES)
    return key and key.removesuffix(".weight")


def own_module(name: str) -> str | None:
    """Return the name, in the layout of three projections, of one of diffusers' modules; None for unknown and shared ones."""
    key = _renamed(f"{name}.weight", _BACK)
    return key and key.removesuffix(".weight")


def _renamed(key: str, names: Mapping[str, str]) -> str | None:
    module, _, leaf = key.rpartition(".")
    number = re.search(r"\.(\d+)\.", module)
    name = names.get(module) or (
        names.get(f"{module[: number.start()]}.#.{module[number.end() :]}") if number else None
    )
    if name is None:
        return None
    leaf = {"scale": "weight"}.get(leaf, leaf) if names is NAMES else leaf
    if names is _BACK and name.endswith("_norm"):
        leaf = "scale"
    return f"{name.replace('#', number[1]) if number else name}.{leaf}"


def swap_halves(tensor: Tensor) -> Tensor:
    """Let the first and the second half of the rows, shift and scale, change places."""
    return torch.cat(tensor.chunk(2)[::-1])


def diffusers_config(config: MMDiTConfig) -> dict[str, Any]:
    """Return the config.json of a FluxTransformer2DModel that computes the same. Raises OsoraError where none does."""
    head = config.hidden_size // config.num_heads
    for key, fits, allowed in (
        ("mlp_ratio", config.mlp_ratio == DIFFUSERS_MLP_RATIO, f"{DIFFUSERS_MLP_RATIO} alone"),
        ("qkv_bias", config.qkv_bias, "true alone"),
        ("theta", config.theta == DIFFUSERS_THETA, f"{DIFFUSERS_THETA} alone"),
        ("axes_dim", sum(config.axes_dim) == head, f"three numbers that add up to the head width, {head}"),
    ):
        if not fits:
            value = getattr(config, key)
            raise OsoraError(
                f"model.{key} = {value}: diffusers' Flux transformer has {allowed}. Export a run, or a file."
            )
    return {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": config.in_channels,
        "num_layers": config.depth,
        "num_single_layers": config.depth_single_blocks,
        "attention_head_dim": head,
        "num_attention_heads": config.num_heads,
        "joint_attention_dim": config.context_in_dim,
        "pooled_projection_dim": config.vec_in_dim,
        "guidance_embeds": config.guidance_embed,
        "axes_dims_rope": list(config.axes_dim),
    }
