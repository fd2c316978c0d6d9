"""Parameters of a recipe's models, counted on modules that are built without memory."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from opensora_cli.planning.denoised import BlockCounts
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.layers.units import units_of
from schemas.autoencoder import AutoencoderConfig
from schemas.denoiser import DenoiserConfig
from schemas.lora import LoraConfig

ENTRY, FINAL = "entry", "final"
"""The parts around the blocks; the last layer is `final_layer` in every family."""
REPLICATED = ("_mod.", "modulation.", "norm.")
"""Parts of a block that tensor parallel processes all hold."""


@dataclass(frozen=True)
class Counted:
    """A model's parameters: all, and those of each of its children."""

    total: int
    children: dict[str, int]


@dataclass(frozen=True)
class DenoiserCounts:
    """What a denoiser's parts hold on one process: everything, and what is trained of it (adapters, or what is not frozen).

    Parts are by kind: "entry" and "final", and one block for each kind that there is in `blocks`, which are in order.
    """

    counted: Counted
    blocks: tuple[str, ...]
    whole: dict[str, BlockCounts]
    trained: dict[str, BlockCounts]

    @property
    def order(self) -> list[str]:
        """The kind of every part of a forward pass."""
        return [ENTRY, *self.blocks, FINAL]


def count_denoiser(config: DenoiserConfig, lora: LoraConfig | None = None, tensor: int = 1) -> DenoiserCounts:
    """Count a denoiser of which `tensor` processes share out the blocks' matrices."""
    with torch.device("meta"):
        module: nn.Module = build_denoiser(config)
    blocks = tuple(block_kinds(module))
    parts = _parts(module, blocks)
    whole = {name: _count(modules, tensor) for name, modules in parts.items()}
    if lora is None:
        trained = {name: _count(modules, tensor, trained=True) for name, modules in parts.items()}
        return DenoiserCounts(_counted(module), blocks, whole, trained)
    adapters = {name: _adapters(modules, lora, tensor) for name, modules in parts.items()}
    return DenoiserCounts(_counted(module), blocks, whole, adapters)


def block_kinds(denoiser: nn.Module) -> list[str]:
    """Return the kind of every block, in order: the name of its stack, with a number where a stack has different ones."""
    names = {module: name for name, module in denoiser.named_modules()}
    kinds: dict[tuple[str, str], str] = {}
    stacks = Counter[str]()
    found = []
    for unit in units_of(denoiser):
        stack = names[unit].rpartition(".")[0].removesuffix("_blocks")  # "double" of double_blocks.3
        key = stack, repr(unit)
        if key not in kinds:
            stacks[stack] += 1
            kinds[key] = stack if stacks[stack] == 1 else f"{stack} {stacks[stack]}"
        found.append(kinds[key])
    return found


def count_autoencoder(config: AutoencoderConfig) -> Counted:
    """Count an autoencoder."""
    with torch.device("meta"):
        return _counted(build_autoencoder(config))


def _counted(module: nn.Module) -> Counted:
    children = {name: sum(p.numel() for p in child.parameters()) for name, child in module.named_children()}
    return Counted(
        sum(p.numel() for p in module.parameters()), {name: count for name, count in children.items() if count}
    )


def _parts(module: nn.Module, kinds: Sequence[str]) -> dict[str, list[nn.Module]]:
    """Return one block of each kind, the last layer, and what is before the blocks."""
    units = units_of(module)
    parts = {kind: [unit] for kind, unit in zip(kinds, units, strict=True)}
    children = {name: child for name, child in module.named_children() if not set(units) & set(child.children())}
    parts[FINAL] = [children.pop("final_layer")]
    return {**parts, ENTRY: list(children.values())}


def _count(modules: Iterable[nn.Module], tensor: int, *, trained: bool = False) -> BlockCounts:
    weights = matrices = 0
    for module in modules:
        for name, parameter in module.named_parameters():
            shared = "." in name and not any(part in f"{name}." for part in REPLICATED)
            numbers = parameter.numel() // (tensor if shared else 1)
            if parameter.requires_grad or not trained:
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
