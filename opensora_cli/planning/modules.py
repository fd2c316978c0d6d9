"""Parameters of a recipe's models, counted on modules that are built without memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from opensora_cli.planning.mmdit import BlockCounts
from opensora_models.build import build_autoencoder, build_denoiser
from schemas.autoencoder import AutoencoderConfig
from schemas.denoiser import DenoiserConfig
from schemas.lora import LoraConfig

PARTS = {"double": "double_blocks", "single": "single_blocks", "final": "final_layer"}
REPLICATED = ("_mod.", "modulation.", "norm.")
"""Parts of a block that tensor parallel processes all hold."""


@dataclass(frozen=True)
class Counted:
    """A model's parameters: all, and those of each of its children."""

    total: int
    children: dict[str, int]


@dataclass(frozen=True)
class DenoiserCounts:
    """What a denoiser's parts hold on one process: everything, and what is trained of it (adapters, or the same)."""

    counted: Counted
    whole: dict[str, BlockCounts]
    trained: dict[str, BlockCounts]


def count_denoiser(config: DenoiserConfig, lora: LoraConfig | None = None, tensor: int = 1) -> DenoiserCounts:
    """Count a denoiser of which `tensor` processes share out the blocks' matrices."""
    with torch.device("meta"):
        module: nn.Module = build_denoiser(config)
    parts = _parts(module)
    whole = {name: _count(modules, tensor) for name, modules in parts.items()}
    if lora is None:
        return DenoiserCounts(_counted(module), whole, whole)
    adapters = {name: _adapters(modules, lora, tensor) for name, modules in parts.items()}
    return DenoiserCounts(_counted(module), whole, adapters)


def count_autoencoder(config: AutoencoderConfig) -> Counted:
    """Count an autoencoder."""
    with torch.device("meta"):
        return _counted(build_autoencoder(config))


def _counted(module: nn.Module) -> Counted:
    children = {name: sum(p.numel() for p in child.parameters()) for name, child in module.named_children()}
    return Counted(
        sum(p.numel() for p in module.parameters()), {name: count for name, count in children.items() if count}
    )


def _parts(module: nn.Module) -> dict[str, list[nn.Module]]:
    """Return one block of each kind, the last layer, and what is before the blocks."""
    children = dict(module.named_children())
    parts: dict[str, list[nn.Module]] = {"double": [], "single": [], "final": [children[PARTS["final"]]]}
    for kind in ("double", "single"):
        parts[kind] = list(children[PARTS[kind]].children())[:1]
    parts["entry"] = [child for name, child in children.items() if name not in PARTS.values()]
    return parts


def _count(modules: Sequence[nn.Module], tensor: int) -> BlockCounts:
    weights = matrices = 0
    for module in modules:
        for name, parameter in module.named_parameters():
            shared = "." in name and not any(part in f"{name}." for part in REPLICATED)
            numbers = parameter.numel() // (tensor if shared else 1)
            weights += numbers
            matrices += numbers if parameter.dim() > 1 else 0
    return BlockCounts(weights, matrices)


def _adapters(modules: Sequence[nn.Module], lora: LoraConfig, tensor: int) -> BlockCounts:
    """Count the two matrices of rank r that each targeted linear layer gets."""
    found = 0
    for module in modules:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) and any(
                name == end or name.endswith(f".{end}") for end in lora.target_modules
            ):
                found += lora.r * (layer.in_features + layer.out_features) // tensor
    return BlockCounts(found, found)
