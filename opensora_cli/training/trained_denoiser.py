"""The denoiser that a recipe trains: with its weights, and with adapters where it trains those alone."""

import torch

from opensora_cli.distributed.process import DTYPES
from opensora_cli.training.draws import seeded_init
from opensora_models.build import Denoiser, build_denoiser
from opensora_models.lora import add_adapters, keep_matrices_in
from opensora_models.mmdit.model import MMDiT
from opensora_models.weight_stream import fill, stream_weights
from opensora_models.weights import load_weights
from schemas.recipes import TrainRecipe


def trained_denoiser(recipe: TrainRecipe, device: torch.device) -> Denoiser:
    """Build the denoiser in fp32 with the recipe's weights, or with ones drawn from its seed.

    With [lora] everything but the adapters is frozen, and its matrices are in the recipe's precision, or in 8 bits.
    Raises OsoraError for weights, targets or adapters that do not fit.
    """
    path, lora = recipe.model.from_pretrained, recipe.lora
    if path is None or lora is None:
        with seeded_init(recipe.seed), torch.device(device):
            module = build_denoiser(recipe.model).float()
        if path is not None:
            load_weights(module, path, allow_missing=recipe.model.allow_missing)
        if lora is not None:
            keep_matrices_in(_mmdit(module), DTYPES[recipe.dtype], float8=lora.fp8_weights)
    else:
        # Every tensor is about to be loaded, so none exists in a precision that is not kept.
        with torch.device("meta"):
            module = build_denoiser(recipe.model).float()
            keep_matrices_in(_mmdit(module), DTYPES[recipe.dtype], float8=lora.fp8_weights)
        module = module.to_empty(device=device)
        fill(module, stream_weights(path), path, device)
    if lora is not None:
        with seeded_init(recipe.seed):
            add_adapters(_mmdit(module), lora)
    return module


def _mmdit(module: Denoiser) -> MMDiT:
    assert isinstance(module, MMDiT), "a rule refuses adapters of other families"
    return module
