"""The two sides of adversarial training (hinge: arXiv 1705.02894; vanilla: arXiv 1406.2661; weight: arXiv 2012.09841)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_WEIGHT = 1e4
LossType = Literal["hinge", "vanilla", "wgan-gp"]


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: LossType) -> Tensor:
    """Return what a discriminator minimises; a scalar, float32. wgan-gp is upstream's, which has no gradient penalty."""
    real, fake = real_logits.float(), fake_logits.float()
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    if kind == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    return 0.5 * (fake.mean() - real.mean())


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Return what an autoencoder gains from deceiving the discriminator: the negated mean logit; a scalar, float32."""
    return -fake_logits.float().mean()


def adaptive_weight(likelihood: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Return the weight that gives both losses equal gradients at the decoder's last layer, at most 1e4; no gradient.

    Both graphs stay. Source: VQGAN (arXiv 2012.09841), eq. 7.
    """
    (of_likelihood,) = torch.autograd.grad(likelihood, last_layer, retain_graph=True)
    (of_adversary,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    return (of_likelihood.norm() / (of_adversary.norm() + 1e-4)).clamp(0.0, MAX_WEIGHT).detach()
