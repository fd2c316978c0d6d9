"""The frozen autoencoder that training, caching, sampling and reconstruction have beside them."""

from pathlib import Path

import torch

from opensora_cli.training.draws import seeded_init
from opensora_models.build import Autoencoder, build_autoencoder
from opensora_models.weights import load_weights
from schemas.autoencoder import AutoencoderConfig


def frozen_autoencoder(
    config: AutoencoderConfig,
    weights: str | Path | None,
    *,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Autoencoder:
    """Return an autoencoder with the weights of a file or folder, or with random ones drawn from `seed`.

    On the meta device it has no weights: enough to ask for sizes, and to make latents of moments. Raises OsoraError where
    the weights do not fit.
    """
    with seeded_init(seed), torch.device(device):
        autoencoder = build_autoencoder(config)
    if weights is not None and device.type != "meta":
        load_weights(autoencoder, weights)
    return autoencoder.to(dtype).eval().requires_grad_(False)
