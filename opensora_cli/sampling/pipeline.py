"""From a recipe to the models of a sampling job."""

from dataclasses import dataclass

import torch
from torch import nn

from opensora_cli.sampling.generate import Generator
from opensora_cli.sampling.weights import find_weights
from opensora_cli.training.draws import seeded_init
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.weights import load_weights
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


def load_models(recipe: SampleRecipe, dtype: torch.dtype, device: torch.device, *, ema: bool) -> Generator:
    """Build the autoencoder and the denoiser, load their weights and cast them. A model without weights stays random.

    `ema` takes the denoiser's averaged weights. Raises OsoraError where weights are missing or do not fit.
    """
    seed = recipe.sampling.seed
    with seeded_init(seed), torch.device(device):
        autoencoder = build_autoencoder(recipe.ae)
    if recipe.ae.from_pretrained:
        load_weights(autoencoder, find_weights(recipe.ae.from_pretrained, ema=False))
    denoiser = _load_denoiser(recipe, dtype, device, ema)
    for module in (denoiser, autoencoder):
        module.to(dtype).eval().requires_grad_(False)
    return Generator(denoiser, autoencoder, recipe.model)


def _load_denoiser(recipe: SampleRecipe, dtype: torch.dtype, device: torch.device, ema: bool) -> nn.Module:
    if recipe.model.from_pretrained is None:
        with seeded_init(recipe.sampling.seed), torch.device(device):
            random: nn.Module = build_denoiser(recipe.model)
        return random
    path = find_weights(recipe.model.from_pretrained, ema=ema)
    # Every tensor is about to be loaded, so none is initialised, and none exists in a precision that is not wanted.
    with torch.device("meta"):
        denoiser: nn.Module = build_denoiser(recipe.model).to(dtype)
    denoiser = denoiser.to_empty(device=device)
    load_weights(denoiser, path)
    return denoiser
