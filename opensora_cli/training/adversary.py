"""The discriminator of autoencoder training: when it learns, what from, and what it is to the autoencoder."""

from pathlib import Path

import torch
from torch import Tensor

from opensora_cli.training.draws import Draws, keyed_generator
from opensora_cli.training.objective import Adversary, Loss
from opensora_models.discriminator.model import PatchDiscriminator3D, init_discriminator
from opensora_models.vae_loss.adversarial import adaptive_weight, discriminator_loss, generator_loss
from opensora_models.weights import load_weights
from schemas.discriminator import DiscriminatorConfig
from schemas.optim import OptimConfig

EXPORT = "adversary.safetensors"


class Opponent:
    """A discriminator with its losses and starts."""

    def __init__(self, config: DiscriminatorConfig, module: PatchDiscriminator3D) -> None:
        self.config = config
        self.module = module

    def trained_by(self, autoencoders: OptimConfig) -> Adversary:
        """Return the module with its own optimizer's settings; clipping and accumulation are the autoencoder's."""
        shared = {"grad_clip": autoencoders.grad_clip, "accumulation_steps": autoencoders.accumulation_steps}
        return Adversary(self.module, OptimConfig.model_validate(self.config.optim.model_dump() | shared))

    def learns(self, update: int) -> bool:
        """Whether the discriminator is trained in an update: from its start on, every time or every second time."""
        loss = self.config.disc_loss
        started = update >= loss.disc_start and loss.disc_factor > 0
        return started and (not self.config.alter_train_gen_disc or update % 2 == 1)

    def lets_learn(self, update: int) -> bool:
        """Whether the autoencoder is trained in an update: always, but for the discriminator's turns."""
        return not (self.config.alter_train_gen_disc and self.learns(update))

    def counts(self, update: int) -> bool:
        """Whether the autoencoder's loss has its adversarial term."""
        return update >= self.config.gen_loss.gen_start and self.config.gen_loss.disc_factor > 0

    def deception(
        self, fake_BCTHW: Tensor, likelihood: Tensor, last_layer: Tensor, draws: Draws
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the autoencoder's term, with gradients to the autoencoder alone, and metrics."""
        config = self.config.gen_loss
        self.module.requires_grad_(False)
        logits = self.module(fake_BCTHW, draws.generator("dropout of the autoencoder's turn", fake_BCTHW.device))
        self.module.requires_grad_(True)
        loss = generator_loss(logits)
        weight = config.disc_factor * config.disc_weight * adaptive_weight(likelihood, loss, last_layer)
        return weight * loss, {"deception": loss, "deception_weight": weight}

    def loss(self, real_BCTHW: Tensor, fake_BCTHW: Tensor, draws: Draws) -> Loss:
        """Return what the discriminator minimises, and its mean logits as metrics; both clips need no gradient."""
        generator = draws.generator("dropout of the discriminator's turn", real_BCTHW.device)
        real_logits = self.module(real_BCTHW, generator)
        fake_logits = self.module(fake_BCTHW, generator)
        config = self.config.disc_loss
        value = config.disc_factor * discriminator_loss(real_logits, fake_logits, config.disc_loss_type)
        logits = {"logits_real": real_logits.float().mean(), "logits_fake": fake_logits.float().mean()}
        return Loss(value, logits, of_adversary=True)


def build_opponent(config: DiscriminatorConfig, seed: int, device: torch.device) -> Opponent:
    """Build the discriminator: with its weights, where the recipe names a file or a checkpoint, or drawn from `seed`."""
    module = PatchDiscriminator3D(config)
    if config.from_pretrained:
        path = Path(config.from_pretrained).expanduser()
        load_weights(module, path / EXPORT if (path / EXPORT).is_file() else path)
    else:
        init_discriminator(module, keyed_generator("discriminator", seed))
    return Opponent(config, module.float().to(device).train())
