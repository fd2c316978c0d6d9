"""From a recipe to the models of a sampling job."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from opensora_cli.sampling.generate import Generator
from opensora_cli.training.draws import seeded_init
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.hunyuan_vae.model import HunyuanVAE
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


def load_models(
    recipe: SampleRecipe, weights: Mapping[str, str | None], dtype: torch.dtype, device: torch.device
) -> Generator:
    """Build the autoencoder and the denoiser, load their weights and cast them.

    `weights` are the files of "model" and "ae"; a model without a file keeps random weights, drawn from the sampling seed.
    Raises OsoraError where weights do not fit.
    """
    autoencoder = load_autoencoder(recipe.ae, weights["ae"], recipe.sampling.seed, dtype, device)
    denoiser = _load_denoiser(recipe, weights["model"], dtype, device)
    denoiser.to(dtype).eval().requires_grad_(False)
    return Generator(denoiser, autoencoder, recipe.model)


def load_autoencoder(
    config: AutoencoderConfig, weights: str | Path | None, seed: int, dtype: torch.dtype, device: torch.device
) -> HunyuanVAE:
    """Build a frozen autoencoder with the weights of a file, or with random ones drawn from `seed`."""
    with seeded_init(seed), torch.device(device):
        autoencoder = build_autoencoder(config)
    if weights is not None:
        load_weights(autoencoder, weights)
    return autoencoder.to(dtype).eval().requires_grad_(False)


def _load_denoiser(recipe: SampleRecipe, path: str | None, dtype: torch.dtype, device: torch.device) -> nn.Module:
    denoiser: nn.Module
    if path is None:
        with seeded_init(recipe.sampling.seed), torch.device(device):
            denoiser = build_denoiser(recipe.model)
        return denoiser
    # Every tensor is about to be loaded, so none is initialised, and none exists in a precision that is not wanted.
    with torch.device("meta"):
        denoiser = build_denoiser(recipe.model).to(dtype)
    denoiser = denoiser.to_empty(device=device)
    load_weights(denoiser, path)
    return denoiser
