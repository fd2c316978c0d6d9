"""Training low-rank adapters inside of a model: peft puts them in, everything else is frozen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from opensora_models.adapter import Adapter, LowRank, read_adapter
from opensora_models.layers.float8_linear import use_float8
from opensora_models.mmdit.adapter_layout import adapter_as
from opensora_models.mmdit.model import MMDiT
from schemas.errors import OsoraError
from schemas.lora import LoraConfig

NAME = "default"
"""What peft calls a model's only adapter."""
_DOWN, _UP = f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"
OF_EITHER_LAYOUT = {"qkv", "linear1", "q_proj", "k_proj", "v_proj", "v_mlp"}
"""Layers that a model has or not, with `fused_qkv`: a recipe may name both."""


@dataclass(frozen=True)
class AdapterConfig:
    """What a model with adapters says of them beside their numbers; see `Adapter`."""

    scale: float
    rotary: Literal["halves", "pairs"]
    base: str | None


class AdapterDropout(nn.Module):
    """Dropout whose mask follows from a key that is set before every forward pass, so that recomputing repeats it."""

    def __init__(self, p: float, number: int) -> None:
        super().__init__()
        self.p, self.number, self.key = p, number, 0

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share `p` of the numbers and scale the others up."""
        if not self.training:
            return x
        seed = (self.key + self.number * 0x9E3779B97F4A7C15) % 2**63
        generator = torch.Generator(x.device).manual_seed(seed)
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.p
        return x * kept / (1 - self.p)


def keep_matrices_in(model: MMDiT, dtype: torch.dtype, *, float8: bool = False) -> None:
    """Cast the linear layers to the precision that they are multiplied in, those of blocks to 8 bits if `float8`.

    Norms stay as they are.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.to(dtype)
    for block in model.units if float8 else ():
        use_float8(block)


def add_adapters(model: MMDiT, config: LoraConfig) -> None:
    """Give the targeted layers of `model` an adapter in fp32 that changes nothing yet, and freeze all other weights.

    Draws come from torch's default generator. Raises OsoraError for a target that the model has not, and for adapter
    weights that do not fit.
    """
    # peft takes seconds to import, and only a run with adapters needs it.
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    check_targets(model, config)
    targets = list(config.target_modules)
    inject_adapter_in_model(PeftConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=targets), model)
    for number, (_, layer) in enumerate(adapted_layers(model)):
        layer.lora_A.float()  # peft makes them in the precision of the layer
        layer.lora_B.float()
        layer.reset_lora_parameters(NAME, init_lora_weights=True)
        if config.lora_dropout:
            layer.lora_dropout[NAME] = AdapterDropout(config.lora_dropout, number)
    rotary = "halves" if model.config.use_liger_rope else "pairs"
    model.adapter_config = AdapterConfig(config.lora_alpha / config.r, rotary, model.config.from_pretrained)
    if config.from_pretrained:
        load_adapter(model, config, Path(config.from_pretrained).expanduser())


def check_targets(model: nn.Module, config: LoraConfig) -> None:
    """Raise OsoraError for a target that is the end of no linear layer's name."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    others = [name for name, module in model.named_modules() if name and not isinstance(module, nn.Linear)]
    for end in config.target_modules:
        if any(name == end or name.endswith(f".{end}") for name in others):
            raise OsoraError(
                f"lora.target_modules: {end!r} is no linear layer. Name the layers in it: {_ends(linear)}."
            )
        if end not in OF_EITHER_LAYOUT and not any(name == end or name.endswith(f".{end}") for name in linear):
            raise OsoraError(f"lora.target_modules: no layer's name ends with {end!r}. There are {_ends(linear)}.")
    if not any(name == end or name.endswith(f".{end}") for name in linear for end in config.target_modules):
        raise OsoraError(f"lora.target_modules: none of them is a layer of this model. There are {_ends(linear)}.")


def _ends(names: list[str]) -> str:
    """Return the distinct last parts of names, with the part before where the last one is a number."""
    ends = {
        ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:]) for parts in (name.split(".") for name in names)
    }
    return ", ".join(sorted(ends))


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and layer of what has an adapter."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            yield name, module


def set_dropout_key(model: nn.Module, key: int) -> None:
    """Choose the masks of the next forward pass, and of its recomputation."""
    for module in model.modules():
        if isinstance(module, AdapterDropout):
            module.key = key


def adapter_of(state: Mapping[str, Tensor], config: AdapterConfig) -> Adapter:
    """Return the adapter in a model's state dict; other entries do not count."""
    names = [key.removesuffix(_DOWN) for key in state if key.endswith(_DOWN)]
    layers = {name: LowRank(state[f"{name}{_DOWN}"], state[f"{name}{_UP}"]) for name in names}
    return Adapter(layers, config.scale, config.rotary, config.base)


@torch.no_grad()
def load_adapter(model: MMDiT, config: LoraConfig, path: Path) -> None:
    """Copy an adapter's file, in whatever layout, into the model's adapters. Raises OsoraError where it does not fit."""
    given = adapter_as(read_adapter(path), model.config)
    own = dict(adapted_layers(model))
    if odd := sorted(own.keys() ^ given.layers.keys()):
        where = "the file has" if odd[0] in given.layers else "the recipe has"
        raise OsoraError(
            f"lora.from_pretrained = {str(path)!r}: {where} an adapter of {odd[0]}, and the other has not "
            f"({len(odd)} such layers). Set lora.target_modules to the layers of the file."
        )
    if given.ranks != [config.r]:
        ranks = ", ".join(map(str, given.ranks))
        hint = (
            f"Set lora.r = {ranks}."
            if len(given.ranks) == 1
            else "Adapters of q, k and v, as one of the fused layer, add up their ranks: train with fused_qkv = false."
        )
        raise OsoraError(
            f"lora.from_pretrained = {str(path)!r}: rank {ranks} in this model's layout, lora.r = {config.r}. {hint}"
        )
    factor = given.scale / (config.lora_alpha / config.r)
    for name, layer in given.layers.items():
        down, up = own[name].lora_A[NAME].weight, own[name].lora_B[NAME].weight
        if down.shape != layer.down.shape or up.shape != layer.up.shape:
            raise OsoraError(
                f"lora.from_pretrained = {str(path)!r}: {name} has another size there: it is of another model."
            )
        down.copy_(layer.down)
        up.copy_(layer.up if factor == 1 else layer.up * factor)
