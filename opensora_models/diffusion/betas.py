"""How much noise each step of a diffusion adds, and the choice of some of the steps.

Sources: DDPM (arXiv 2006.11239), section 4; the cosine and the respacing: Improved DDPM (arXiv 2102.09672), sections 3.2
and 4. Legend: S steps.
"""

import math
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["linear", "squaredcos_cap_v2"]
MAX_BETA = 0.999


def named_betas(name: ScheduleName, steps: int) -> Tensor:
    """Return the share of the variance that each step replaces by noise, (S,) float64."""
    if name == "linear":
        scale = 1000 / steps
        return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)
    place = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = ((place + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=MAX_BETA)


def space_timesteps(steps: int, spacing: str) -> tuple[int, ...]:
    """Return which of `steps` timesteps are used, rising: all for an empty `spacing`.

    "10,15,20" takes so many from each of three equal sections, evenly and with both ends; "ddim25" takes every n-th from
    0 so that 25 are taken. Raises ValueError where that is impossible.
    """
    if not spacing:
        return tuple(range(steps))
    if spacing.startswith("ddim"):
        return _strided(steps, int(spacing.removeprefix("ddim")))
    counts = [int(count) for count in spacing.split(",")]
    taken: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        size = steps // len(counts) + (section < steps % len(counts))
        if not 1 <= count <= size:
            raise ValueError(f"spacing {spacing!r} takes {count} of a section of {size} timesteps. Take 1 to {size}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # The position is summed up, not multiplied: upstream's rounding of halves depends on it.
        place = 0.0
        for _ in range(count):
            taken.append(start + round(place))
            place += stride
        start += size
    return tuple(taken)


def _strided(steps: int, count: int) -> tuple[int, ...]:
    for stride in range(1, steps):
        if len(range(0, steps, stride)) == count:
            return tuple(range(0, steps, stride))
    raise ValueError(f"no whole stride takes {count} of {steps} timesteps. Give a count without ddim")


def spaced_betas(betas: Tensor, timesteps: tuple[int, ...]) -> Tensor:
    """Return the betas of a diffusion over some of the timesteps that has the same noise at each of them."""
    kept = torch.cumprod(1 - betas, dim=0)[list(timesteps)]
    return 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
