"""Training an autoencoder: reconstruct clips, keep the latents near a unit Gaussian."""

import torch
from torch import Tensor, nn

from opensora_cli.data.loader import Batch
from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_models.build import build_autoencoder
from opensora_models.hunyuan_vae.pass_through import can_pass_through, init_pass_through
from opensora_models.vae_loss import psnr, reconstruction_loss
from opensora_models.weights import load_weights
from schemas.recipes import VaeTrainRecipe


class VaeObjective:
    """A trained autoencoder."""

    def __init__(self, recipe: VaeTrainRecipe, device: torch.device) -> None:
        self.recipe = recipe
        with seeded_init(recipe.seed), torch.device(device):
            self.module: nn.Module = build_autoencoder(recipe.ae)
        if recipe.ae.from_pretrained:
            load_weights(self.module, recipe.ae.from_pretrained)
        elif can_pass_through(self.module):
            init_pass_through(self.module, keyed_generator("weights", recipe.seed))
        self.module.float().train()

    def loss(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Return reconstruction plus weighted KL; see `Objective`. Metrics: both parts, and PSNR in dB."""
        config = self.recipe.vae_loss
        reconstruction_BCTHW, posterior = self.module(batch.video, draws.generator("posterior"))
        reconstruction = reconstruction_loss(reconstruction_BCTHW, batch.video, config.reconstruction_loss)
        kl = posterior.kl().float().mean() if posterior is not None else reconstruction.new_zeros(())
        with torch.no_grad():
            quality = psnr(reconstruction_BCTHW, batch.video)
        return reconstruction + config.kl_loss_weight * kl, {
            "reconstruction": reconstruction,
            "kl": kl,
            "psnr_db": quality,
        }
