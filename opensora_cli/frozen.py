"""The frozen autoencoder that training, caching, sampling and reconstruction have beside them."""

from pathlib import Path

import torch

from opensora_cli.fitting_tiles import FittingTiles
from opensora_cli.training.draws import seeded_init
from opensora_models.autoencoder_weights import load_autoencoder
from opensora_models.build import Autoencoder, build_autoencoder
from opensora_models.dc_ae.model import DCAE
from opensora_models.hunyuan_vae.model import HunyuanVAE
from schemas.autoencoder import AutoencoderConfig


def frozen_autoencoder(
    config: AutoencoderConfig,
    weights: str | Path | None,
    *,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Autoencoder:
    """Return an autoencoder with the weights of a file or folder, of its stages' files, or with random ones drawn from `seed`.

    On the meta device it has no weights: enough to ask for sizes, and to make latents of moments. Raises OsoraError where
    the weights do not fit. With `tiling = "auto"` it chooses its tiles by the memory that is free when it first meets a size.
    """
    with seeded_init(seed), torch.device(device):
        autoencoder = build_autoencoder(config)
    if device.type != "meta":
        load_autoencoder(autoencoder, weights)
    if isinstance(autoencoder, HunyuanVAE | DCAE) and autoencoder.config.tiling == "auto":
        autoencoder.tile_choice = FittingTiles(autoencoder.config, dtype)
    return autoencoder.to(dtype).eval().requires_grad_(False)
