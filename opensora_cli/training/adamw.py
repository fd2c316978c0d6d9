"""AdamW where the weights are, and what every form of it has in common."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from schemas.optim import OptimConfig


class Updater(Protocol):
    """Applies gradients to parameters that it was given by name."""

    def step(self, lr: float) -> None:
        """Apply the gradients that are there, and forget them."""

    def state(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield parameter name, moment and its live tensor, also of parameters that were never updated."""
        ...


class DeviceAdamW:
    """PyTorch's AdamW, its moments beside the weights."""

    def __init__(self, params: Mapping[str, nn.Parameter], config: OptimConfig) -> None:
        self.params = params
        self.adamw = fused_adamw(list(params.values()), config)

    def step(self, lr: float) -> None:
        """Apply the gradients that are there, and forget them."""
        self.adamw.param_groups[0]["lr"] = lr
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield parameter name, moment and its tensor."""
        for name, p in self.params.items():
            for moment, tensor in moments_of(self.adamw, p).items():
                yield name, moment, tensor


def fused_adamw(params: Sequence[Tensor], config: OptimConfig) -> torch.optim.AdamW:
    """Return PyTorch's AdamW with the recipe's numbers, one kernel for all: on a CPU six times as fast as `foreach`."""
    return torch.optim.AdamW(
        params, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )


def moments_of(optimizer: torch.optim.AdamW, p: Tensor) -> dict[str, Tensor]:
    """Return a parameter's moments and count of updates; AdamW makes them at its first step, a checkpoint is loaded before."""
    state: dict[str, Tensor] = optimizer.state[p]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        state["exp_avg"] = torch.zeros_like(p, requires_grad=False)
        state["exp_avg_sq"] = torch.zeros_like(p, requires_grad=False)
    return state
