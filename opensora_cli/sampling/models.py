"""From a recipe to the models of a sampling job."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from opensora_cli.distributed.team import Team
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.sampling.generate import ALONE, Generator, ModelName
from opensora_cli.sampling.offload import BlockSwap, Waiting, WholeModel
from opensora_cli.training.draws import seeded_init
from opensora_models.adapter import add_to_weights, read_adapter
from opensora_models.build import Denoiser, build_autoencoder, build_denoiser
from opensora_models.compiled import compile_blocks
from opensora_models.layers.float8_linear import use_float8
from opensora_models.mmdit.adapter_layout import adapter_as
from opensora_models.mmdit.attention import pick_attention
from opensora_models.mmdit.model import MMDiT
from opensora_models.mmdit.parallel import use_attention
from opensora_models.weight_stream import fill, stream_weights
from opensora_models.weights import load_weights, read_weights
from schemas.autoencoder import AutoencoderConfig
from schemas.denoiser import MMDiTConfig
from schemas.recipes import SampleRecipe

HOST = torch.device("cpu")


@dataclass(frozen=True)
class AutoencoderFacts:
    """What a job has to know of an autoencoder before its weights are loaded."""

    strides: tuple[int, int, int]
    causal: bool


def autoencoder_facts(config: AutoencoderConfig) -> AutoencoderFacts:
    """Build the autoencoder without memory and ask it."""
    with torch.device("meta"):
        autoencoder = build_autoencoder(config)
    return AutoencoderFacts(autoencoder.strides, autoencoder.causal)


def load_models(
    recipe: SampleRecipe,
    weights: Mapping[str, str | None],
    dtype: torch.dtype,
    device: torch.device,
    team: Team = ALONE,
    adapters: Mapping[Path, float] | None = None,
) -> Generator:
    """Build the autoencoder and the denoiser, load their weights, and put them where `sampling.offload` says.

    `weights` are the files of "model" and "ae"; a model without a file keeps random weights, drawn from the sampling seed.
    `adapters` are added to the denoiser's, each as many times as its weight says. The denoiser is shared out over the
    `team`, as the recipe says. Raises OsoraError where weights do not fit, or a package is missing.
    """
    config = recipe.sampling
    attention = pick_attention(config.attention)  # before minutes of loading
    home = device if config.offload == "none" else HOST
    before = HOST if team.divides_weights else home  # so that no GPU ever has to hold the whole
    autoencoder = frozen_autoencoder(recipe.ae, weights["ae"], seed=config.seed, dtype=dtype, device=home)
    denoiser = _load_denoiser(recipe, weights["model"], adapters or {}, dtype, before, device)
    denoiser.eval().requires_grad_(False)
    if isinstance(denoiser, MMDiT):
        use_attention(denoiser, attention)
    team.spread(denoiser)
    denoiser.to(home)
    waiting = _put_away(denoiser, autoencoder, config.offload, device)
    if config.compile:
        compile_blocks(denoiser, any_size=False)
    return Generator(denoiser, autoencoder, recipe.model, waiting, device, recipe.diffusion)


def _put_away(
    denoiser: Denoiser, autoencoder: nn.Module, offload: str, device: torch.device
) -> dict[ModelName, Waiting]:
    """Take the models that are not always on the device into host memory."""
    if offload == "none":
        return {}
    by_block = offload == "block" and denoiser.units
    return {
        "autoencoder": WholeModel(autoencoder, device),
        "denoiser": BlockSwap(denoiser, denoiser.units, device) if by_block else WholeModel(denoiser, device),
    }


def _load_denoiser(
    recipe: SampleRecipe,
    path: str | None,
    adapters: Mapping[Path, float],
    dtype: torch.dtype,
    home: torch.device,
    device: torch.device,
) -> Denoiser:
    """Return the denoiser in the memory of `home`, the matrices of its blocks in 8 bits if the recipe says so."""
    if path is None:
        with seeded_init(recipe.sampling.seed), home:
            denoiser = build_denoiser(recipe.model)
        return _prepared(denoiser, recipe, dtype)
    if not isinstance(recipe.model, MMDiTConfig):
        with home:
            denoiser = build_denoiser(recipe.model)
        load_weights(denoiser, path)  # a billion weights at most, which may lie in the file in another way
        return _prepared(denoiser, recipe, dtype)
    # Every tensor is about to be loaded, so none is initialised, and none exists in a precision that is not wanted.
    with torch.device("meta"):
        denoiser = _prepared(build_denoiser(recipe.model), recipe, dtype)
    denoiser.to_empty(device=home)
    fill(denoiser, _adapted(path, adapters, recipe) if adapters else stream_weights(path), path, device)
    return denoiser


def _adapted(path: str, adapters: Mapping[Path, float], recipe: SampleRecipe) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights at `path` with every adapter added; for that they are all there at once."""
    state = read_weights(path)
    for adapter, weight in adapters.items():
        assert isinstance(recipe.model, MMDiTConfig), "a rule refuses adapters of other families"
        add_to_weights(state, adapter_as(read_adapter(adapter), recipe.model), weight)
    yield from state.items()


def _prepared(denoiser: Denoiser, recipe: SampleRecipe, dtype: torch.dtype) -> Denoiser:
    denoiser.to(dtype)
    if recipe.sampling.fp8_weights:
        for block in denoiser.units:
            use_float8(block)
    return denoiser
