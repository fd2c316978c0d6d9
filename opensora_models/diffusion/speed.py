"""SpeeD: train the steps at which the noise changes most, and weigh them by how much noise there is.

Source: Wang et al. (arXiv 2405.17403). Legend: S steps, B batch.
"""

import torch
from torch import Tensor

STEEP = 1e-4
"""Change of the noise's share in one step from which on a step is drawn five times as often."""
FLAT = 5e-5
"""Change below which steps are paired with ones that mean something."""


def step_probabilities(alphas_cumprod_S: Tensor) -> Tensor:
    """Return how often each step is drawn, (S,), adding up to 1."""
    share_S = torch.tanh(1e6 * (_change(alphas_cumprod_S) - STEEP)) + 1.5
    return share_S / share_S.sum()


def step_weights(alphas_cumprod_S: Tensor) -> Tensor:
    """Return the weight of each step's squared error, (S,): 1 / (1 + signal-to-noise ratio)."""
    return 1 - alphas_cumprod_S


def meaningful_steps(alphas_cumprod_S: Tensor) -> int:
    """Return the number of steps before the noise hardly changes any more."""
    return int((_change(alphas_cumprod_S) < FLAT).int().argmax()) + 1


def draw_steps(generator: torch.Generator, batch: int, alphas_cumprod_S: Tensor) -> Tensor:
    """Draw steps, (B,) int64: one half, and to each its counterpart among the steps before or after the flat ones' start."""
    meaningful = meaningful_steps(alphas_cumprod_S)
    chances_S = step_probabilities(alphas_cumprod_S).to(generator.device)
    drawn_B = torch.multinomial(chances_S, batch // 2 + 1, replacement=True, generator=generator)
    paired_B = torch.where(drawn_B < meaningful, meaningful - drawn_B, drawn_B - meaningful)
    return torch.cat([drawn_B, paired_B])[:batch]


def _change(alphas_cumprod_S: Tensor) -> Tensor:
    (change_S,) = torch.gradient((1 - alphas_cumprod_S).sqrt())
    return change_S
