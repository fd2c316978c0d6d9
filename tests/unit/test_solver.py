"""Solvers against an equation whose solution is known: data that is normal with mean MEAN and deviation SPREAD."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from opensora_models.diffusion.solver import SolverName, solve

MEAN, SPREAD = 1.5, 0.4
START = torch.tensor([-1.2, 0.3, 2.0], dtype=torch.float64)


def velocity(x: Tensor, time: float, step: int) -> Tensor:
    """E[noise - data | x]: x is normal around (1 - t) MEAN with variance ((1 - t) SPREAD)^2 + t^2."""
    variance = ((1 - time) * SPREAD) ** 2 + time**2
    slope = (time - (1 - time) * SPREAD**2) / variance
    return slope * (x - (1 - time) * MEAN) - MEAN


def solution() -> Tensor:
    """Each point keeps its place among the others: from N(0, 1) to N(MEAN, SPREAD)."""
    return MEAN + SPREAD * START


def error(name: SolverName, steps: int) -> float:
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    return float((solve(velocity, START, times, name) - solution()).abs().max())


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_twice_the_steps_divide_the_error_by_two_to_the_order(name: SolverName, order: int) -> None:
    ratios = [error(name, steps) / error(name, 2 * steps) for steps in (80, 160)]
    assert all(order - 0.4 < math.log2(ratio) < order + 0.25 for ratio in ratios), ratios


def test_second_order_is_better_at_few_steps() -> None:
    assert error("heun", 20) < error("euler", 40) / 4
    assert error("dpmpp_2m", 20) < error("euler", 20) / 4


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 6), ("heun", 11), ("dpmpp_2m", 6)])
def test_evaluations_and_the_step_they_belong_to(name: SolverName, evaluations: int) -> None:
    asked: list[tuple[float, int]] = []
    shown: list[tuple[int, int]] = []

    def remember(x: Tensor, time: float, step: int) -> Tensor:
        asked.append((time, step))
        return velocity(x, time, step)

    times = torch.linspace(1, 0, 7).tolist()
    solve(remember, START, times, name, lambda step, steps: shown.append((step, steps)))
    assert len(asked) == evaluations
    assert shown == [(step, 6) for step in range(1, 7)]
    assert all(time in (times[step], times[step + 1]) and time > 0 for time, step in asked)


@pytest.mark.parametrize("name", get_args(SolverName))
def test_a_constant_velocity_is_followed_exactly_whatever_the_times(name: SolverName) -> None:
    times = [1.0000001, 0.83, 0.4, 0.39, 0.02, 0.0]
    end = solve(lambda x, time, step: torch.full_like(x, 2.0), START, times, name)
    assert torch.allclose(end, START - 2.0, atol=1e-6)
