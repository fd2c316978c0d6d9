"""Training an autoencoder: reconstruct clips, keep the latents in shape, and deceive a discriminator if there is one.

Legend: B batch, C channels, T frames, H W pixels.
"""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_cli.data.loader import Batch
from opensora_cli.training.adversary import Opponent, build_opponent
from opensora_cli.training.clock import DeviceClock
from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_cli.training.mixed_frames import frames_to_keep
from opensora_cli.training.objective import Adversary, Loss
from opensora_models.build import build_autoencoder
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.hunyuan_vae.pass_through import can_pass_through, init_pass_through
from opensora_models.layers.recompute import Recompute, recompute_stages
from opensora_models.quality import psnr
from opensora_models.vae_loss.lpips import Lpips, load_lpips
from opensora_models.vae_loss.reconstruction import (
    negative_log_likelihood,
    outlier_penalty,
    reconstruction_loss,
)
from opensora_models.weights import load_weights
from schemas.recipes import VaeTrainRecipe


class VaeObjective:
    """A trained autoencoder, and the discriminator that is trained against it where the recipe has one."""

    encoding: DeviceClock | None = None

    def __init__(self, recipe: VaeTrainRecipe, device: torch.device) -> None:
        self.recipe = recipe
        with seeded_init(recipe.seed), torch.device(device):
            self.ae = build_autoencoder(recipe.ae)
        self.module: nn.Module = self.ae
        if recipe.ae.from_pretrained:
            load_weights(self.ae, recipe.ae.from_pretrained)
        elif isinstance(self.ae, HunyuanVAE) and can_pass_through(self.ae):
            init_pass_through(self.ae, keyed_generator("weights", recipe.seed))
        self.module.float().train()
        if recipe.memory.grad_checkpoint:
            how = Recompute.of(recipe.memory)
            for coder in (self.ae.encoder, self.ae.decoder):
                recompute_stages(coder, how)
        self.lpips: Lpips | None = None
        if recipe.vae_loss.perceptual_loss_weight:
            source = recipe.vae_loss.lpips_from_pretrained
            self.lpips = load_lpips(source, "vae_loss.lpips_from_pretrained").to(device)
        self.opponent: Opponent | None = None
        self.adversary: Adversary | None = None
        if recipe.discriminator is not None:
            self.opponent = build_opponent(recipe.discriminator, recipe.seed, device)
            self.adversary = self.opponent.trained_by(recipe.optim)

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the autoencoder's loss, then the discriminator's once it has started; see `Objective`.

        Metrics: every part of the loss, and PSNR in dB. In the discriminator's turn of an alternating run the
        autoencoder's loss has no gradient.
        """
        video_BCTHW = self._cut(batch.video, draws)
        opponent = self.opponent
        with torch.set_grad_enabled(opponent is None or opponent.lets_learn(draws.update)):
            reconstruction_BCTHW, loss = self._loss(video_BCTHW, draws)
        reconstruction_BCTHW = reconstruction_BCTHW.detach()
        yield loss
        if opponent is not None and opponent.learns(draws.update):
            yield opponent.loss(video_BCTHW, reconstruction_BCTHW, draws)

    def _cut(self, video_BCTHW: Tensor, draws: Draws) -> Tensor:
        """Leave out the last frames of the batch as the recipe's strategy says."""
        recipe = self.recipe
        frames = frames_to_keep(
            video_BCTHW.shape[2],
            recipe.mixed_strategy,
            recipe.mixed_image_ratio,
            draws.generator("mixed frames"),
            time_stride=self.ae.strides[0],
            causal=self.ae.causal,
        )
        return video_BCTHW[:, :, :frames]

    def _loss(self, video_BCTHW: Tensor, draws: Draws) -> tuple[Tensor, Loss]:
        config = self.recipe.vae_loss
        reconstruction_BCTHW, latents_BCTHW, kl = self._reconstruct(video_BCTHW, draws)
        values = video_BCTHW[0, :, 0].numel()
        distance = reconstruction_loss(reconstruction_BCTHW, video_BCTHW, config.reconstruction_loss)
        metrics = {"reconstruction": distance}
        if self.lpips is not None:
            perceptual = values * self.lpips(_frames(reconstruction_BCTHW), _frames(video_BCTHW)).mean()
            metrics["perceptual"] = perceptual
            distance = distance + config.perceptual_loss_weight * perceptual
        total = likelihood = negative_log_likelihood(distance, values, config.logvar_init)
        if kl is not None:
            metrics["kl"] = kl
            total = total + config.kl_loss_weight * kl
        if config.opl_loss_weight:
            metrics["outliers"] = outlier_penalty(latents_BCTHW)
            total = total + config.opl_loss_weight * metrics["outliers"]
        if self.opponent is not None and self.opponent.counts(draws.update) and likelihood.requires_grad:
            last_layer = last_convolution(self.ae.decoder).weight
            term, more = self.opponent.deception(reconstruction_BCTHW, likelihood, last_layer, draws)
            total = total + term
            metrics |= more
        with torch.no_grad():
            metrics["psnr_db"] = psnr(reconstruction_BCTHW, video_BCTHW).mean()
        return reconstruction_BCTHW, Loss(total, metrics)

    def _reconstruct(self, video_BCTHW: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the reconstruction, the latents, and the KL to a unit normal (a mean over clips) if latents are drawn."""
        generator = draws.generator("posterior")
        if hasattr(self.ae, "posterior"):
            reconstruction_BCTHW, posterior = self.module(video_BCTHW, generator)
            return reconstruction_BCTHW, posterior.mean, posterior.kl().float().mean()
        latents_BCTHW = self.ae.encode(video_BCTHW, generator)
        return self.ae.decode(latents_BCTHW), latents_BCTHW, None


def last_convolution(decoder: nn.Module) -> nn.Conv2d | nn.Conv3d:
    """Return the convolution that makes the pixels: the one that the decoder registers last."""
    return [module for module in decoder.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]


def _frames(x_BCTHW: Tensor) -> Tensor:
    return rearrange(x_BCTHW, "b c t h w -> (b t) c h w")
