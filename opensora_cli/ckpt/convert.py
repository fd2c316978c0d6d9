"""Weights in, weights out: other names, another layout, another precision, other files; the same function."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from opensora_cli.files import write_text
from opensora_models.autoencoder_weights import own_names
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.mmdit.diffusers_names import diffusers_config, from_diffusers, is_diffusers, to_diffusers
from opensora_models.mmdit.weights import convert_layout
from opensora_models.recognise import recognise
from opensora_models.weights import SINGLE_FILE, StateDict, check_fit, read_weights, save_weights
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError, UsageError
from schemas.recipes import RunRecipe, TrainRecipe

LAYOUTS = {
    "open-sora": {"fused_qkv": False, "use_liger_rope": True},
    "flux": {"fused_qkv": True, "use_liger_rope": False},
    "diffusers": {"fused_qkv": False, "use_liger_rope": False},
}
"""Name -> how q, k and v lie in it; diffusers has other names besides."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Output:
    """Where weights go and how: a .safetensors file or a folder, cast to `dtype`, in shards of at most `shard_gb` (1e9 bytes)."""

    path: Path
    dtype: str | None = None
    shard_gb: float = 10.0

    def refuse_existing(self) -> None:
        """Raise UsageError before any work is done where nothing can be written under this name."""
        if self.path.exists():
            raise UsageError(f"{self.path} exists. Give another name; nothing is overwritten.")
        if self.path.suffix not in ("", ".safetensors"):
            raise UsageError(
                f"{self.path}: weights are written as a .safetensors file or into a folder, not as {self.path.suffix}."
            )

    def write(self, state: StateDict, *, name: str = SINGLE_FILE, config: str | None = None) -> list[Path]:
        """Write the weights, in a folder under `name` and beside them config.json, and return the files."""
        self.refuse_existing()
        cast = {key: self._cast(tensor) for key, tensor in state.items()}
        in_folder = self.path.suffix != ".safetensors"
        (self.path if in_folder else self.path.parent).mkdir(parents=True, exist_ok=True)
        files = save_weights(cast, self.path / name if in_folder else self.path, int(self.shard_gb * 1e9))
        if in_folder and config is not None:
            write_text(self.path / "config.json", config)
            files.append(self.path / "config.json")
        return files

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(PRECISIONS[self.dtype]) if self.dtype and tensor.is_floating_point() else tensor


def import_weights(source: Path, recipe: RunRecipe, output: Output, renames: Sequence[str] = ()) -> list[Path]:
    """Write the weights at `source` as the recipe's denoiser or autoencoder loads them, and return the files.

    `renames` are OLD=NEW, replaced anywhere in a key, in order. Raises OsoraError where the weights do not fit the recipe.
    """
    output.refuse_existing()
    state = renamed(read_weights(source), renames)
    config = denoiser_config(state)
    if config is None or not isinstance(recipe, TrainRecipe):
        with torch.device("meta"):
            module: nn.Module = build_autoencoder(recipe.ae)
        state = own_names(module, state)
        check_fit(module, state, source)
        return output.write(state)
    state = in_layout(state, config, {key: getattr(recipe.model, key) for key in ("fused_qkv", "use_liger_rope")})
    with torch.device("meta"):
        module = build_denoiser(recipe.model)
    check_fit(module, state, source, allow_missing=recipe.model.allow_missing)
    return output.write(state)


def convert_weights(
    source: Path, layout: str | None, output: Output, *, trained_as: MMDiTConfig | None = None
) -> list[Path]:
    """Write the weights at `source` in a layout of `LAYOUTS`, or as they are, and return the files.

    `trained_as` tells the layout that shapes leave open. Raises OsoraError for a layout of anything but a denoiser.
    """
    output.refuse_existing()
    state = read_weights(source)
    if layout is None:
        return output.write(state)
    config = trained_as or denoiser_config(state)
    if config is None:
        raise OsoraError(f"{source}: --layout is the denoiser's, and these are other weights. Leave --layout out.")
    state = in_layout(state, config, LAYOUTS[layout])
    if layout != "diffusers":
        return output.write(state)
    named = to_diffusers(state, config.hidden_size)
    whole = json.dumps(diffusers_config(config), indent=2) if output.path.suffix == "" else None
    return output.write(named, name="diffusion_pytorch_model.safetensors", config=whole)


def denoiser_config(state: StateDict) -> MMDiTConfig | None:
    """Return the config that a denoiser's weights imply, None for other weights. diffusers' names count as a denoiser's."""
    diffusers = is_diffusers(state)
    plain = from_diffusers(state) if diffusers else state
    found = recognise({key: tuple(tensor.shape) for key, tensor in plain.items()})
    if found is None or found.table != "model":
        return None
    return MMDiTConfig.model_validate(found.config | (LAYOUTS["diffusers"] if diffusers else {}))


def in_layout(state: StateDict, config: MMDiTConfig, layout: dict[str, bool]) -> StateDict:
    """Return a `config` denoiser's weights with q, k and v as `layout` wants them, under osora's names."""
    plain = from_diffusers(state) if is_diffusers(state) else state
    return convert_layout(plain, config, config.model_copy(update=layout))


def renamed(state: StateDict, renames: Sequence[str]) -> StateDict:
    """Replace OLD by NEW in every key. Raises UsageError for a rename that has no `=` or fits no key."""
    for text in renames:
        old, equals, new = text.partition("=")
        if not equals or not old:
            raise UsageError(f"--rename {text!r}: expected OLD=NEW, such as --rename module.=")
        if not any(old in key for key in state):
            raise UsageError(
                f"--rename {text!r}: no key has {old!r} in it; the first key is {next(iter(state), 'none')}."
            )
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    return state
