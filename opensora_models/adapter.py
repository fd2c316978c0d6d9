"""Low-rank adapters as files: reading peft's and diffusers' formats, writing both, and adding one to weights.

I input features of a layer, R rank, O output features. An adapter changes a layer's weight by `scale * up_OR @ down_RI`
(arXiv 2106.09685).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from opensora_models.weights import StateDict, explained_damage, write_whole
from schemas.errors import OsoraError

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
PEFT_PREFIX, DIFFUSERS_PREFIX = "base_model.model.", "transformer."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
ROTARY = "osora_rotary"
"""Entry of the file's header that says which rotary order the rows of q and k have: shapes do not tell."""
_DIFFUSERS_METADATA = "lora_adapter_metadata"
_PLAIN = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "lora_bias": False, "fan_in_fan_out": False,
    "modules_to_save": None, "trainable_token_indices": None, "target_parameters": None,
}  # fmt: skip
"""What an adapter of two matrices a layer, and nothing else, says in peft's config."""


@dataclass(frozen=True)
class LowRank:
    """The change of one layer's weight: `down` is (R, I), `up` (O, R)."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Rank of the change."""
        return len(self.down)


Layers = dict[str, LowRank]


@dataclass(frozen=True)
class Adapter:
    """The changes of all layers, by name, and the factor they all have; `rotary` is None where the file does not say it."""

    layers: Layers
    scale: float
    rotary: Literal["halves", "pairs"] | None = None
    base: str | None = None
    """The weights that it was trained on, as far as they have a name."""

    @property
    def ranks(self) -> list[int]:
        """Every rank that occurs."""
        return sorted({layer.rank for layer in self.layers.values()})


def is_adapter(path: Path) -> bool:
    """Whether a path is an adapter's file or folder, by its names."""
    if path.is_dir():
        return any((path / name).is_file() for name in (PEFT_CONFIG, DIFFUSERS_WEIGHTS))
    return path.name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS)


def adapter_file(path: Path) -> Path:
    """Return the file of an adapter's folder, or the file itself."""
    if path.is_dir():
        return path / (PEFT_WEIGHTS if (path / PEFT_CONFIG).is_file() else DIFFUSERS_WEIGHTS)
    return path


def read_adapter(path: Path) -> Adapter:
    """Return the adapter of a file or folder in peft's or diffusers' format.

    Raises OsoraError where there is none, or one that is more than two matrices a layer.
    """
    file = adapter_file(path)
    if not file.is_file():
        raise OsoraError(
            f"{path}: no adapter. Give a folder with {PEFT_CONFIG} and {PEFT_WEIGHTS} (peft), or a file such as "
            f"{DIFFUSERS_WEIGHTS} (diffusers)."
        )
    with explained_damage(file), safe_open(file, framework="pt") as opened:
        header = opened.metadata() or {}
        state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
    if any(key.startswith(PEFT_PREFIX) for key in state):
        prefix, config = PEFT_PREFIX, _peft_config(file.with_name(PEFT_CONFIG))
    else:
        prefix, config = DIFFUSERS_PREFIX, _diffusers_config(header, file)
    layers = _layers(state, prefix, file)
    scales = {name: _scale(config, name, layer.rank) for name, layer in layers.items()}
    common = next(iter(scales.values()))
    layers = {name: _scaled(layer, scales[name] / common) for name, layer in layers.items()}
    rotary = header.get(ROTARY)
    known = rotary if rotary in ("halves", "pairs") else None
    return Adapter(layers, common, known, config.get("base_model_name_or_path"))


def _layers(state: Mapping[str, Tensor], prefix: str, file: Path) -> Layers:
    names = {key.removesuffix(DOWN) for key in state if key.endswith(DOWN)}
    expected = {f"{name}{end}" for name in names for end in (DOWN, UP)}
    if not names or (odd := sorted(state.keys() ^ expected)):
        raise OsoraError(
            f"{file}: {odd[0] if names else 'no key'} is not one of a pair NAME{DOWN}, NAME{UP}; an adapter has two "
            "matrices for each of its layers and nothing else."
        )
    if foreign := sorted(name for name in names if not name.startswith(prefix)):
        raise OsoraError(f"{file}: {foreign[0]} does not begin with {prefix}: it belongs to another model.")
    found = {name.removeprefix(prefix): LowRank(state[f"{name}{DOWN}"], state[f"{name}{UP}"]) for name in sorted(names)}
    for name, layer in found.items():
        if layer.down.dim() != 2 or layer.up.dim() != 2 or layer.up.shape[1] != layer.rank:
            shapes = f"{tuple(layer.down.shape)} and {tuple(layer.up.shape)}"
            raise OsoraError(f"{file}: the matrices of {name}, {shapes}, do not multiply.")
    return found


def _peft_config(file: Path) -> dict[str, Any]:
    with explained_damage(file):
        config = json.loads(file.read_text(encoding="utf-8"))
        unusual = {key: config[key] for key, plain in _PLAIN.items() if config.get(key, plain) not in (plain, [])}
    if unusual:
        key, value = next(iter(unusual.items()))
        raise OsoraError(f"{file}: {key} = {value!r}: osora knows adapters with {key} = {_PLAIN[key]!r} alone.")
    return config


def _diffusers_config(header: Mapping[str, str], file: Path) -> dict[str, Any]:
    """Return what diffusers' header says of the adapter; without it, alpha is the rank and the factor 1."""
    with explained_damage(file):
        given = json.loads(header.get(_DIFFUSERS_METADATA, "{}"))
        return {key.removeprefix(DIFFUSERS_PREFIX): value for key, value in given.items()}


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    alphas = {**(config.get("alpha_pattern") or {})}
    alpha = next((value for end, value in alphas.items() if name == end or name.endswith(f".{end}")), None)
    if alpha is None:
        alpha = config.get("lora_alpha", rank)
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _scaled(layer: LowRank, factor: float) -> LowRank:
    return layer if factor == 1 else replace(layer, up=layer.up * factor)


def folded(adapter: Adapter) -> Layers:
    """Return the layers with the factor in them."""
    return {name: _scaled(layer, adapter.scale) for name, layer in adapter.layers.items()}


def save_adapter(adapter: Adapter, folder: Path) -> list[Path]:
    """Write an adapter into a new folder in peft's format, which peft's own loader reads, and return the files."""
    folder.mkdir(parents=True)
    ranks = {name: layer.rank for name, layer in adapter.layers.items()}
    common = max(ranks.values(), default=1)
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapter.base,
        "inference_mode": True,
        "bias": "none",
        "r": common,
        "lora_alpha": adapter.scale * common,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != common},
        "alpha_pattern": {name: adapter.scale * rank for name, rank in ranks.items() if rank != common},
        "target_modules": sorted(ranks),
    }
    write_whole(folder / PEFT_WEIGHTS, _serialised(adapter.layers, PEFT_PREFIX, adapter.rotary))
    write_whole(folder / PEFT_CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return [folder / PEFT_WEIGHTS, folder / PEFT_CONFIG]


def save_for_diffusers(layers: Layers, file: Path) -> Path:
    """Write an adapter's file in diffusers' format; the layers, under its names, have their factor in them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, _serialised(layers, DIFFUSERS_PREFIX, None))
    return file


def _serialised(layers: Layers, prefix: str, rotary: str | None) -> bytes:
    state = {f"{prefix}{name}{end}": matrix for name, layer in layers.items() for end, matrix in _ends(layer)}
    return save(state, metadata={"format": "pt", **({ROTARY: rotary} if rotary else {})})


def _ends(layer: LowRank) -> Iterable[tuple[str, Tensor]]:
    # safetensors writes no two names of one memory, and split projections share their matrix.
    return (DOWN, layer.down.detach().cpu().clone()), (UP, layer.up.detach().cpu().clone())


def add_to_weights(state: StateDict, adapter: Adapter, weight: float = 1.0) -> None:
    """Add `weight` times the adapter to weights under the same names, in place of the entries; sums are made in fp32.

    Raises OsoraError for a layer that the weights lack, or that has another size there.
    """
    for name, layer in adapter.layers.items():
        key = f"{name}.weight"
        shape = (layer.up.shape[0], layer.down.shape[1])
        if key not in state or tuple(state[key].shape) != shape:
            there = f"has {tuple(state[key].shape)}" if key in state else "has no such layer"
            raise OsoraError(
                f"the adapter changes {key} of {shape}, and the model {there}: it was trained on another model."
            )
        change_OI = layer.up.float() @ layer.down.float()
        state[key] = (state[key].float() + weight * adapter.scale * change_OI).to(state[key].dtype)
