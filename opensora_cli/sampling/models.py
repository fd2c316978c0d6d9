"""From a recipe to the models of a sampling job."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from opensora_cli.distributed.team import Team
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.sampling.generate import ALONE, Generator
from opensora_cli.training.draws import seeded_init
from opensora_models.adapter import add_to_weights, read_adapter
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.compiled import compile_blocks
from opensora_models.mmdit.adapter_layout import adapter_as
from opensora_models.weights import fit_weights, read_weights
from schemas.autoencoder import AutoencoderConfig
from schemas.recipes import SampleRecipe


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
    """Build the autoencoder and the denoiser, load their weights and cast them.

    `weights` are the files of "model" and "ae"; a model without a file keeps random weights, drawn from the sampling seed.
    `adapters` are added to the denoiser's, each as many times as its weight says. The denoiser is shared out over the
    `team`, as the recipe says. Raises OsoraError where weights do not fit.
    """
    autoencoder = frozen_autoencoder(recipe.ae, weights["ae"], seed=recipe.sampling.seed, dtype=dtype, device=device)
    denoiser = _load_denoiser(recipe, weights["model"], adapters or {}, dtype, device)
    denoiser = denoiser.to(dtype).eval().requires_grad_(False)
    team.spread(denoiser)
    if recipe.sampling.compile:
        compile_blocks(denoiser, any_size=False)
    return Generator(denoiser, autoencoder, recipe.model)


def _load_denoiser(
    recipe: SampleRecipe,
    path: str | None,
    adapters: Mapping[Path, float],
    dtype: torch.dtype,
    device: torch.device,
) -> nn.Module:
    denoiser: nn.Module
    if path is None:
        with seeded_init(recipe.sampling.seed), torch.device(device):
            denoiser = build_denoiser(recipe.model)
        return denoiser
    # Every tensor is about to be loaded, so none is initialised, and none exists in a precision that is not wanted.
    with torch.device("meta"):
        denoiser = build_denoiser(recipe.model).to(dtype)
    denoiser = denoiser.to_empty(device=device)
    state = read_weights(path)
    for adapter, weight in adapters.items():
        add_to_weights(state, adapter_as(read_adapter(adapter), recipe.model), weight)
    fit_weights(denoiser, state, path)
    return denoiser
