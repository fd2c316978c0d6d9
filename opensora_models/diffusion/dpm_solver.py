"""DPM-Solver++ for discrete diffusions: their noise between the steps, and the multistep solver.

Continuous times: 1 is noise, 1/N the first of N steps. Sources: DPM-Solver (arXiv 2206.00927), appendix D.2 for the
interpolation; DPM-Solver++ (arXiv 2211.01095), algorithm 2 and appendix B. Legend: N steps of the diffusion.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from opensora_models.diffusion.solver import OnStep

Data = Callable[[Tensor, float, int], Tensor]
"""The predicted data at a point and a continuous time, in a 0-based step."""

LOWEST_LOG_SNR = -5.1
"""Half log-SNR below which there is nothing to see, and the solver would be unstable: it starts above."""
FEW_STEPS = 10
"""With fewer steps the last ones fall to the first order, which is stable there."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """alpha(t) and sigma(t), piecewise linear in log alpha between the steps, from betas (N,)."""

    betas: Tensor

    @cached_property
    def log_alphas(self) -> Tensor:
        """The logarithm of alpha at each step, (N,) float64."""
        return 0.5 * (1 - self.betas.double()).log().cumsum(dim=0)

    @cached_property
    def times(self) -> Tensor:
        """The continuous times of the steps, (N,) float64."""
        steps = len(self.betas)
        return torch.arange(1, steps + 1, dtype=torch.float64) / steps

    def log_alpha(self, t: Tensor) -> Tensor:
        """Return log alpha at times, any shape; beyond the first and last step the line goes on."""
        return _line(t.double(), self.times, self.log_alphas)

    def sigma(self, t: Tensor) -> Tensor:
        """Return the standard deviation of the noise."""
        return (-(2 * self.log_alpha(t)).expm1()).sqrt()

    def half_log_snr(self, t: Tensor) -> Tensor:
        """Return log(alpha / sigma), called lambda in the papers; it falls with the time."""
        return self.log_alpha(t) - self.sigma(t).log()

    def time_of(self, half_log_snr: Tensor) -> Tensor:
        """Return the time of a half log-SNR."""
        log_alpha = -0.5 * torch.logaddexp(-2 * half_log_snr.double(), torch.zeros((), dtype=torch.float64))
        return _line(log_alpha, self.log_alphas.flip(0), self.times.flip(0))

    def evenly(self, steps: int) -> list[float]:
        """Return steps + 1 times at even distances, from the noisiest useful one to the first of the diffusion."""
        useful = self.half_log_snr(self.times) >= LOWEST_LOG_SNR
        last = self.times[useful][-1].item()
        return torch.linspace(last, self.times[0].item(), steps + 1, dtype=torch.float64).tolist()


def multistep(
    data: Data, x: Tensor, schedule: NoiseSchedule, times: list[float], order: int = 2, on_step: OnStep | None = None
) -> Tensor:
    """Follow the predicted data from `x` at times[0] to times[-1] with the solver of order 1, 2 or 3; one call a step."""
    grid = torch.tensor(times, dtype=torch.float64)
    snr = schedule.half_log_snr(grid).tolist()
    alpha, sigma = schedule.log_alpha(grid).exp().tolist(), schedule.sigma(grid).tolist()
    steps = len(times) - 1
    seen: list[Tensor] = []
    for step, (now, then) in enumerate(pairwise(range(steps + 1))):
        seen = [data(x, times[now], step), *seen[: order - 1]]
        left = steps - step if steps < FEW_STEPS else order
        known = min(len(seen), order, left)
        slope = _extrapolated(seen[:known], snr[max(0, now - known + 1) : then + 1])
        x = sigma[then] / sigma[now] * x + alpha[then] * slope
        if on_step is not None:
            on_step(then, steps)
    return x


def _extrapolated(seen: list[Tensor], snr: list[float]) -> Tensor:
    """Return the integral of the data over a step, over alpha: from the newest prediction and those before it.

    `snr` rises from the oldest prediction's to that of the step's end.
    """
    h = snr[-1] - snr[-2]
    phi_1 = math.expm1(-h)
    total = -phi_1 * seen[0]
    if len(seen) == 1:
        return total
    r_0 = (snr[-2] - snr[-3]) / h
    d_0 = (seen[0] - seen[1]) / r_0
    if len(seen) == 2:
        return total - 0.5 * phi_1 * d_0
    r_1 = (snr[-3] - snr[-4]) / h
    d_1 = (seen[1] - seen[2]) / r_1
    bend = (d_0 - d_1) / (r_0 + r_1)
    phi_2 = phi_1 / h + 1
    return total + phi_2 * (d_0 + r_0 * bend) - (phi_2 / h - 0.5) * bend


def _line(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Return the piecewise linear function through (xs, ys), xs rising, beyond whose ends the last pieces go on."""
    right = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    x_0, x_1, y_0, y_1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y_0 + (x - x_0) / (x_1 - x_0) * (y_1 - y_0)
