"""The frozen autoencoder beside a denoiser, as training and caching both have it."""

import torch

from opensora_cli.distributed.process import DTYPES
from opensora_cli.training.draws import seeded_init
from opensora_models.build import Autoencoder, build_autoencoder
from opensora_models.weights import load_weights
from schemas.recipes import TrainRecipe


def frozen_autoencoder(recipe: TrainRecipe, device: torch.device) -> Autoencoder:
    """Return the recipe's autoencoder in its precision; without named weights they are drawn from the seed.

    On the meta device it has no weights: enough to ask for sizes, and to make latents of moments.
    """
    with seeded_init(recipe.seed), torch.device(device):
        autoencoder = build_autoencoder(recipe.ae)
    if recipe.ae.from_pretrained and device.type != "meta":
        load_weights(autoencoder, recipe.ae.from_pretrained)
    return autoencoder.to(DTYPES[recipe.dtype]).eval().requires_grad_(False)
