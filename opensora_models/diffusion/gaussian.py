"""Gaussian diffusion over discrete steps: its tables, the noisy latent, and what a model's output says of the step before.

Steps are indices into the tables, which are float64; latents are float32 or lower. Legend: B batch, S steps.
Sources: DDPM (arXiv 2006.11239), section 2; learned variances: Improved DDPM (arXiv 2102.09672), section 3.1.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from opensora_models.diffusion.process import per_item


class Normal(NamedTuple):
    """A normal distribution of each value."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A diffusion with the given betas, (S,) float64, and how its model speaks (see `IDDPMConfig`)."""

    betas: Tensor
    learn_sigma: bool = True
    sigma_small: bool = False
    predict_xstart: bool = False

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """The share of the data's variance that is left after each step."""
        return torch.cumprod(1 - self.betas, dim=0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        """The same before each step."""
        return torch.cat([self.betas.new_ones(1), self.alphas_cumprod[:-1]])

    @cached_property
    def posterior_variance(self) -> Tensor:
        """The variance of the step before, given the data: 0 for the first step."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Tensor:
        """Its logarithm; the first step, where that is infinite, takes the second's."""
        return torch.cat([self._second_variance, self.posterior_variance[1:]]).log()

    @property
    def _second_variance(self) -> Tensor:
        return self.posterior_variance[1:2] if len(self.betas) > 1 else self.betas

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """The weight of the data in the mean of the step before."""
        return self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """The weight of the noisy latent in it."""
        return (1 - self.alphas_cumprod_prev) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def fixed_variance(self) -> Tensor:
        """The variance of a step of a model that gives none: one of its two bounds."""
        if self.sigma_small:
            return self.posterior_variance
        return torch.cat([self._second_variance, self.betas[1:]])

    @cached_property
    def fixed_log_variance(self) -> Tensor:
        """Its logarithm, finite for the first step."""
        return self.posterior_log_variance_clipped if self.sigma_small else self.fixed_variance.log()

    def noised(self, x_0: Tensor, index_B: Tensor, noise: Tensor) -> Tensor:
        """Return a draw of the latent after a step, from unit noise."""
        kept = self.alphas_cumprod
        return at(kept.sqrt(), index_B, x_0) * x_0 + at((1 - kept).sqrt(), index_B, x_0) * noise

    def marginal(self, x_0: Tensor, index_B: Tensor) -> Normal:
        """Return the distribution of the latent after a step; the variances are (B, 1, ...)."""
        kept = self.alphas_cumprod
        return Normal(
            at(kept.sqrt(), index_B, x_0) * x_0, at(1 - kept, index_B, x_0), at((1 - kept).log(), index_B, x_0)
        )

    def posterior(self, x_0: Tensor, x_t: Tensor, index_B: Tensor) -> Normal:
        """Return the distribution of the latent before a step, given the data and the latent after it."""
        mean = at(self.posterior_mean_coef1, index_B, x_t) * x_0 + at(self.posterior_mean_coef2, index_B, x_t) * x_t
        return Normal(
            mean, at(self.posterior_variance, index_B, x_t), at(self.posterior_log_variance_clipped, index_B, x_t)
        )

    def predicted_data(self, out: Tensor, x_t: Tensor, index_B: Tensor) -> Tensor:
        """Return the data that a model's output means."""
        first = out[:, : x_t.shape[1]]
        if self.predict_xstart:
            return first
        kept = self.alphas_cumprod
        return at((1 / kept).sqrt(), index_B, x_t) * x_t - at((1 / kept - 1).sqrt(), index_B, x_t) * first

    def predicted_noise(self, x_0: Tensor, x_t: Tensor, index_B: Tensor) -> Tensor:
        """Return the unit noise that makes x_t of the data."""
        kept = self.alphas_cumprod
        return (at((1 / kept).sqrt(), index_B, x_t) * x_t - x_0) / at((1 / kept - 1).sqrt(), index_B, x_t)

    def step_back(self, out: Tensor, x_t: Tensor, index_B: Tensor, *, clip: bool = False) -> tuple[Normal, Tensor]:
        """Return what the model says of the latent before a step, and the data it predicts, in [-1, 1] with `clip`."""
        x_0 = self.predicted_data(out, x_t, index_B)
        if clip:
            x_0 = x_0.clamp(-1, 1)
        mean = self.posterior(x_0, x_t, index_B).mean
        if not self.learn_sigma:
            variance, log = (at(table, index_B, x_t) for table in (self.fixed_variance, self.fixed_log_variance))
            return Normal(mean, variance.expand_as(mean), log.expand_as(mean)), x_0
        share = (out[:, x_t.shape[1] :] + 1) / 2
        low, high = at(self.posterior_log_variance_clipped, index_B, x_t), at(self.betas.log(), index_B, x_t)
        log = share * high + (1 - share) * low
        return Normal(mean, log.exp(), log), x_0


def at(table_S: Tensor, index_B: Tensor, like: Tensor) -> Tensor:
    """Return each item's entry of a table so that it broadcasts over `like`, (B, 1, ...) float32."""
    return per_item(table_S.float().to(index_B.device)[index_B], like)


def divergence(first: Normal, second: Normal) -> Tensor:
    """Return the Kullback-Leibler divergence of the second from the first, in nats, of each value."""
    shift = (first.mean - second.mean).square() * (-second.log_variance).exp()
    log_ratio = second.log_variance - first.log_variance
    return 0.5 * (log_ratio - 1 + (-log_ratio).exp() + shift)


def discrete_log_likelihood(x: Tensor, normal: Normal) -> Tensor:
    """Return the log probability, in nats, that a normal gives to values known to 1/255 of either side of [-1, 1].

    Source: DDPM, section 3.3, with its approximation of the normal's integral.
    """
    centred, scale = x - normal.mean, (-0.5 * normal.log_variance).exp()
    below_upper, below_lower = (_below(scale * (centred + edge)) for edge in (1 / 255, -1 / 255))
    inside = torch.where(x > 0.999, 1 - below_lower, below_upper - below_lower)
    return torch.where(x < -0.999, below_upper, inside).clamp(min=1e-12).log()


def _below(x: Tensor) -> Tensor:
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))).tanh())
