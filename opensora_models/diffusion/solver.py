"""Solvers of dx/dt = velocity(x, t) from time 1 (noise) to time 0 (data).

Heun's method as in EDM (arXiv 2206.00364), algorithm 1. DPM-Solver++ (arXiv 2211.01095), algorithm 2, on the path of
rectified flow: alpha = 1 - t, sigma = t, and the prediction of the data is x - t * velocity.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal, TypeGuard, get_args

from torch import Tensor

SolverName = Literal["euler", "heun", "dpmpp_2m"]


def is_flow_solver(name: str) -> TypeGuard[SolverName]:
    """Whether a solver follows a velocity."""
    return name in get_args(SolverName)


Velocity = Callable[[Tensor, float, int], Tensor]
"""Velocity at a point and a time; the last argument is the 0-based step, whose guidance holds for all its evaluations."""

OnStep = Callable[[int, int], None]
"""Called after each step with the steps done and the steps in all."""


def solve(velocity: Velocity, x: Tensor, times: list[float], name: SolverName, on_step: OnStep | None = None) -> Tensor:
    """Follow the velocity from `x`, any shape, at times[0] to times[-1]; `times` fall strictly and end at 0 or above.

    With n steps, euler and dpmpp_2m evaluate n times, heun 2n - 1 times when the last time is 0.
    """
    steps = {"euler": _euler, "heun": _heun, "dpmpp_2m": _dpmpp_2m}[name](velocity, x, times)
    for done, point in enumerate(steps, 1):
        x = point
        if on_step is not None:
            on_step(done, len(times) - 1)
    return x


def _euler(velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
    for step, (now, then) in enumerate(pairwise(times)):
        x = x + (then - now) * velocity(x, now, step)
        yield x


def _heun(velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
    for step, (now, then) in enumerate(pairwise(times)):
        first = velocity(x, now, step)
        ahead = x + (then - now) * first
        # At time 0 there is no noise to see: models are not trained there.
        x = ahead if then == 0 else x + (then - now) * (first + velocity(ahead, then, step)) / 2
        yield x


def _dpmpp_2m(velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
    before: tuple[float, Tensor] | None = None  # time and data prediction of the step before
    for step, (now, then) in enumerate(pairwise(times)):
        data = x - now * velocity(x, now, step)
        slope = data
        # Half log-SNR is infinite at times 1 and 0: steps from or to them are of first order.
        if before is not None and before[0] < 1 and then > 0:
            ratio = (_log_snr(then) - _log_snr(now)) / (_log_snr(now) - _log_snr(before[0]))
            slope = data + ratio / 2 * (data - before[1])
        x = then / now * x + (1 - then / now) * slope
        before = now, data
        yield x


def _log_snr(time: float) -> float:
    """Return half the logarithm of the signal-to-noise ratio."""
    return math.log((1 - time) / time)
