"""An adapter of one weight layout as one of another: what happens to the rows of a weight happens to those of `up`.

Splitting a projection gives both parts the same `down`. Joining parts that share it gives it back; parts with their own
make one of all their ranks, each with zeros in the others' rows. A part without an adapter has zeros alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from opensora_models.adapter import Adapter, Layers, LowRank, folded
from opensora_models.mmdit.diffusers_names import diffusers_module, own_module, swap_halves
from opensora_models.mmdit.weights import halves_to_pairs, pairs_to_halves
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError

_SINGLE = "single_transformer_blocks."
NEIGHBOURS = {"fused_qkv": False, "use_liger_rope": False}
"""The layout that diffusers' names stand for."""


def fits_diffusers(layers: Layers) -> bool:
    """Whether these are diffusers' names."""
    return any(own_module(name) is not None or name.startswith(_SINGLE) for name in layers)


def adapter_as(adapter: Adapter, target: MMDiTConfig) -> Adapter:
    """Return an adapter from a file as one of a `target` model. Raises OsoraError for layers of another family."""
    layers, fused = adapter.layers, any(name.endswith((".qkv", ".linear1")) for name in adapter.layers)
    halves = adapter.rotary == "halves" if adapter.rotary else not fused
    if fits_diffusers(layers):
        layers, fused, halves = _from_diffusers(layers, target), False, False
    source = target.model_copy(update={"fused_qkv": fused, "use_liger_rope": halves})
    rotary = "halves" if target.use_liger_rope else "pairs"
    return replace(adapter, layers=convert(layers, source, target), rotary=rotary)


def to_diffusers(adapter: Adapter, source: MMDiTConfig) -> Layers:
    """Return a `source` model's adapter under diffusers' names, the factor in it.

    Raises OsoraError for a layer that diffusers does not have.
    """
    layers = convert(folded(adapter), source, source.model_copy(update=NEIGHBOURS))
    named: Layers = {}
    for name, layer in layers.items():
        if match := re.fullmatch(r"single_blocks\.(\d+)\.v_mlp", name):
            value, mlp = _split(layer, [source.hidden_size])
            named |= {f"{_SINGLE}{match[1]}.attn.to_v": value, f"{_SINGLE}{match[1]}.proj_mlp": mlp}
            continue
        theirs = diffusers_module(name)
        if theirs is None:
            raise OsoraError(f"{name}: diffusers' Flux transformer has no such layer, and takes no adapter of it.")
        named[theirs] = _rows(layer, swap_halves) if theirs.startswith("norm_out.") else layer
    return named


def _from_diffusers(layers: Layers, target: MMDiTConfig) -> Layers:
    own: Layers = {}
    sizes = [target.hidden_size, int(target.hidden_size * target.mlp_ratio)]
    for name, layer in layers.items():
        if match := re.fullmatch(r"single_transformer_blocks\.(\d+)\.(attn\.to_v|proj_mlp)", name):
            block = f"{_SINGLE}{match[1]}"
            parts = [layers.get(f"{block}.attn.to_v"), layers.get(f"{block}.proj_mlp")]
            own[f"single_blocks.{match[1]}.v_mlp"] = _join(parts, sizes)
            continue
        ours = own_module(name)
        if ours is None:
            raise OsoraError(f"{name}: not a layer of diffusers' Flux transformer; the adapter is for another model.")
        own[ours] = _rows(layer, swap_halves) if ours.startswith("final_layer.adaLN") else layer
    return own


def convert(layers: Layers, source: MMDiTConfig, target: MMDiTConfig) -> Layers:
    """Return a `source` model's adapter as one of a `target` model that differs in the layout alone."""
    if (source.fused_qkv, source.use_liger_rope) == (target.fused_qkv, target.use_liger_rope):
        return layers
    split = _split_projections(layers, source.hidden_size) if source.fused_qkv else layers
    if source.use_liger_rope != target.use_liger_rope:
        order = pairs_to_halves if target.use_liger_rope else halves_to_pairs
        split = {
            name: _reordered(layer, source.num_heads, order) if name.endswith((".q_proj", ".k_proj")) else layer
            for name, layer in split.items()
        }
    return _fuse_projections(split, target) if target.fused_qkv else split


def _reordered(layer: LowRank, num_heads: int, order: Callable[[Tensor], Tensor]) -> LowRank:
    return _rows(layer, lambda up_OR: order(up_OR.unflatten(0, (num_heads, -1))).flatten(0, 1))


def _rows(layer: LowRank, change: Callable[[Tensor], Tensor]) -> LowRank:
    return LowRank(layer.down, change(layer.up))


def _split(layer: LowRank, borders: Sequence[int]) -> list[LowRank]:
    return [LowRank(layer.down, part_OR) for part_OR in layer.up.tensor_split(list(borders))]


def _split_projections(layers: Layers, width: int) -> Layers:
    split: Layers = {}
    for name, layer in layers.items():
        prefix, _, fused = name.rpartition(".")
        if fused in ("qkv", "linear1"):
            last = "v_proj" if fused == "qkv" else "v_mlp"
            names = (f"{prefix}.{part}" for part in ("q_proj", "k_proj", last))
            split |= dict(zip(names, _split(layer, [width, 2 * width]), strict=True))
        else:
            split[name] = layer
    return split


def _fuse_projections(layers: Layers, target: MMDiTConfig) -> Layers:
    width, mlp = target.hidden_size, int(target.hidden_size * target.mlp_ratio)
    fused: Layers = {}
    for name, layer in layers.items():
        prefix, _, part = name.rpartition(".")
        if part not in ("q_proj", "k_proj", "v_proj", "v_mlp"):
            fused[name] = layer
            continue
        last, whole, rows = ("v_mlp", "linear1", width + mlp) if "single" in prefix else ("v_proj", "qkv", width)
        parts = [layers.get(f"{prefix}.{one}") for one in ("q_proj", "k_proj", last)]
        fused[f"{prefix}.{whole}"] = _join(parts, [width, width, rows])
    return fused


def _join(parts: Sequence[LowRank | None], rows: Sequence[int]) -> LowRank:
    """Return one change of layers that lie one after the other, `rows` output features each."""
    there = [part for part in parts if part is not None]
    shared = all(torch.equal(part.down, there[0].down) for part in there)
    downs = [there[0].down] if shared else [part.down for part in there]
    rank, column, ups = sum(map(len, downs)), 0, []
    for part, count in zip(parts, rows, strict=True):
        up_OR = there[0].up.new_zeros(count, rank)
        if part is not None:
            up_OR[:, column : column + part.rank] = part.up
            column += 0 if shared else part.rank
        ups.append(up_OR)
    return LowRank(torch.cat(downs), torch.cat(ups))
