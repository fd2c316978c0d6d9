"""Adapters out of a run, and into the weights that they belong to."""

from pathlib import Path

from opensora_cli.ckpt.convert import LAYOUTS, Output, denoiser_config
from opensora_models.adapter import (
    DIFFUSERS_WEIGHTS,
    Adapter,
    add_to_weights,
    read_adapter,
    save_adapter,
    save_for_diffusers,
)
from opensora_models.mmdit.adapter_layout import adapter_as, to_diffusers
from opensora_models.mmdit.diffusers_names import is_diffusers
from opensora_models.weights import read_weights
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError, UsageError


def export_adapter(source: Path, config: MMDiTConfig, layout: str | None, output: Output) -> list[Path]:
    """Write a `config` model's adapter in peft's format into a folder, or in diffusers' into a folder or file.

    Returns the files. Raises UsageError where peft's is asked to be one file, or in another precision than it was trained in.
    """
    output.refuse_existing()
    if output.dtype is not None:
        raise UsageError("--dtype: an adapter is written in the precision that it was trained in. Leave --dtype out.")
    adapter = read_adapter(source)
    if layout == "diffusers":
        in_folder = output.path.suffix == ""
        file = output.path / DIFFUSERS_WEIGHTS if in_folder else output.path
        return [save_for_diffusers(to_diffusers(adapter_as(adapter, config), config), file)]
    if output.path.suffix:
        raise UsageError(f"{output.path}: an adapter in peft's format is a folder. Leave the suffix out.")
    target = config.model_copy(update=LAYOUTS[layout]) if layout else config
    return save_adapter(adapter_as(adapter, target), output.path)


def merge_adapter(
    base: Path, adapter: Path, output: Output, weight: float = 1.0, trained_as: MMDiTConfig | None = None
) -> list[Path]:
    """Write a denoiser's weights with `weight` times an adapter in them, in the base's layout; return the files.

    `trained_as` tells the layout of the base that its shapes leave open. Raises OsoraError where the two do not belong
    together.
    """
    output.refuse_existing()
    state = read_weights(base)
    config = trained_as or denoiser_config(state)
    if config is None:
        raise OsoraError(f"{base}: these are no denoiser's weights, and adapters are of one.")
    own = adapter_as(read_adapter(adapter), config)
    if is_diffusers(state):
        own = Adapter(to_diffusers(own, config), 1.0)
    add_to_weights(state, own, weight)
    return output.write(state)
