"""Training an autoencoder: reconstruct clips, keep the latents in shape, and deceive a discriminator if there is one.

Legend: B batch, C channels, T frames, H W pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_cli.data.loader import Batch
from opensora_cli.training.adversary import Opponent, build_opponent
from opensora_cli.training.clock import DeviceClock
from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_cli.training.mixed_frames import frames_to_keep
from opensora_cli.training.objective import Adversary, Loss
from opensora_models.autoencoder_weights import load_autoencoder
from opensora_models.build import Autoencoder, build_autoencoder
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.hunyuan_vae.pass_through import can_pass_through, init_pass_through
from opensora_models.layers.recompute import Recompute, recompute_stages
from opensora_models.open_sora_vae.model import OpenSoraVAE, Stages
from opensora_models.quality import psnr
from opensora_models.vae_loss.lpips import Lpips, load_lpips
from opensora_models.vae_loss.reconstruction import (
    negative_log_likelihood,
    outlier_penalty,
    reconstruction_loss,
)
from schemas.checks.frames import takes_any_length
from schemas.recipes import VaeTrainRecipe


class Made(NamedTuple):
    """A reconstruction, the latents, the KL to a unit normal (a mean over clips) if latents are drawn, and what is between."""

    pixels: Tensor
    latents: Tensor
    kl: Tensor | None = None
    stages: Stages | None = None


class VaeObjective:
    """A trained autoencoder, and the discriminator that is trained against it where the recipe has one."""

    encoding: DeviceClock | None = None

    def __init__(self, recipe: VaeTrainRecipe, device: torch.device) -> None:
        self.recipe = recipe
        with seeded_init(recipe.seed), torch.device(device):
            self.ae = build_autoencoder(recipe.ae)
        self.module: nn.Module = self.ae
        loaded = load_autoencoder(self.ae, recipe.ae.from_pretrained)
        if not loaded and isinstance(self.ae, HunyuanVAE) and can_pass_through(self.ae):
            init_pass_through(self.ae, keyed_generator("weights", recipe.seed))
        self.module.float().train()
        if recipe.memory.grad_checkpoint:
            how = Recompute.of(recipe.memory)
            for coder in coders(self.ae):
                recompute_stages(coder, how)
        self.lpips: Lpips | None = None
        if recipe.vae_loss.sees_perception:
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
            time_stride=1 if takes_any_length(self.recipe.ae) else self.ae.strides[0],
            causal=self.ae.causal,
        )
        return video_BCTHW[:, :, :frames]

    def _loss(self, video_BCTHW: Tensor, draws: Draws) -> tuple[Tensor, Loss]:
        config = self.recipe.vae_loss
        made = self._reconstruct(video_BCTHW, draws)
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.use_real_rec_loss):
            likelihood, metrics = self._likelihood(made.pixels, video_BCTHW)
        total = likelihood if config.use_real_rec_loss else torch.zeros_like(likelihood)
        if made.kl is not None:
            metrics["kl"] = made.kl
            total = total + config.kl_loss_weight * config.use_real_rec_loss * made.kl
        for name, value in self._between_stages(made.stages):
            metrics[name] = value
            total = total + value
        if config.opl_loss_weight:
            metrics["outliers"] = outlier_penalty(made.latents)
            total = total + config.opl_loss_weight * metrics["outliers"]
        if self.opponent is not None and self.opponent.counts(draws.update) and likelihood.requires_grad:
            last_layer = last_convolution(pixel_decoder(self.ae)).weight
            term, more = self.opponent.deception(made.pixels, likelihood, last_layer, draws)
            total = total + term
            metrics |= more
        with torch.no_grad():
            metrics["psnr_db"] = psnr(made.pixels, video_BCTHW).mean()
        return made.pixels, Loss(total, metrics)

    def _likelihood(self, pixels_BCTHW: Tensor, video_BCTHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return how unlikely a clip is given its reconstruction, and the distances that this is made of."""
        config = self.recipe.vae_loss
        values = video_BCTHW[0, :, 0].numel()
        distance = reconstruction_loss(pixels_BCTHW, video_BCTHW, config.reconstruction_loss)
        metrics = {"reconstruction": distance}
        if self.lpips is not None:
            metrics["perceptual"] = values * self.lpips(_frames(pixels_BCTHW), _frames(video_BCTHW)).mean()
            distance = distance + config.perceptual_loss_weight * metrics["perceptual"]
        return negative_log_likelihood(distance, values, config.logvar_init), metrics

    def _between_stages(self, stages: Stages | None) -> Iterator[tuple[str, Tensor]]:
        """Yield the losses of the stage along time by itself (Open-Sora 1.2, scripts/train_vae.py): of latents, without LPIPS."""
        config = self.recipe.vae_loss
        if stages is None:
            return
        pairs = {"rebuilt": (stages.rebuilt, config.use_z_rec_loss)}
        if stages.pictures.shape[2] == 1:  # an image's latents have the size of its picture's
            pairs["image_identity"] = stages.latents, config.use_image_identity_loss
        for name, (made_BCTHW, counts) in pairs.items():
            if counts:
                distance = reconstruction_loss(made_BCTHW, stages.pictures, config.reconstruction_loss)
                yield name, negative_log_likelihood(distance, made_BCTHW[0, :, 0].numel(), config.logvar_init)

    def _reconstruct(self, video_BCTHW: Tensor, draws: Draws) -> Made:
        generator = draws.generator("posterior")
        if isinstance(self.ae, OpenSoraVAE):
            learns = self.recipe.vae_loss.use_real_rec_loss
            stages = self.ae.through_stages(video_BCTHW, generator, pixels_learn=learns)
            return Made(stages.pixels, stages.posterior.mean, stages.posterior.kl().float().mean(), stages)
        if hasattr(self.ae, "posterior"):
            reconstruction_BCTHW, posterior = self.module(video_BCTHW, generator)
            return Made(reconstruction_BCTHW, posterior.mean, posterior.kl().float().mean())
        latents_BCTHW = self.ae.encode(video_BCTHW, generator)
        return Made(self.ae.decode(latents_BCTHW), latents_BCTHW)


def coders(ae: Autoencoder) -> list[nn.Module]:
    """Return every encoder and decoder."""
    stages = (ae.spatial_vae.module, ae.temporal_vae) if isinstance(ae, OpenSoraVAE) else (ae,)
    return [getattr(stage, name) for stage in stages for name in ("encoder", "decoder")]


def pixel_decoder(ae: Autoencoder) -> nn.Module:
    """Return the decoder that makes pixels."""
    return coders(ae)[1]


def last_convolution(decoder: nn.Module) -> nn.Conv2d | nn.Conv3d:
    """Return the convolution that makes the pixels: the one that the decoder registers last."""
    return [module for module in decoder.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]


def _frames(x_BCTHW: Tensor) -> Tensor:
    return rearrange(x_BCTHW, "b c t h w -> (b t) c h w")
