"""The optimizer and its learning rate, as a function of the update alone."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from opensora_cli.distributed.layout import Layout
from schemas.optim import OptimConfig

Schedule = Literal["constant", "cosine", "linear"]


def learning_rate(
    step: int,
    *,
    lr: float,
    warmup_steps: int,
    initial_lr: float = 1e-6,
    schedule: Schedule = "constant",
    max_steps: int | None = None,
) -> float:
    """Return the rate of the 0-based update `step`.

    constant: a line from `initial_lr` that reaches `lr` one update after warm-up. linear: the same, then a line that
    reaches 0 at `max_steps` and stays there. cosine: a line from 0 that reaches `lr` in the last warm-up update, then half
    a cosine that reaches 0 at `max_steps` and stays there.
    """
    if step < warmup_steps:
        if schedule == "cosine":
            return lr * (step + 1) / warmup_steps
        return initial_lr + (lr - initial_lr) * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return lr
    if max_steps is None:
        raise ValueError(f"a {schedule} schedule needs max_steps")
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return lr * (1 - progress) if schedule == "linear" else 0.5 * lr * (1 + math.cos(math.pi * progress))


class Optimizer:
    """AdamW with the recipe's schedule and clipping; hyperparameters come from the recipe, tensors from the checkpoint."""

    def __init__(
        self, module: nn.Module, config: OptimConfig, max_steps: int | None, layout: Layout | None = None
    ) -> None:
        self.config = config
        self.layout = layout or Layout()
        self.max_steps = max_steps
        self.params = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.adamw = torch.optim.AdamW(
            self.params.values(),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def has_gradients(self) -> bool:
        """Whether a loss has reached the parameters since the last update."""
        return any(p.grad is not None for p in self.params.values())

    def clip(self) -> Tensor:
        """Average the gradients over processes, clip them to `grad_clip` (0: do not) and return their norm before it.

        The norm is a scalar on the device.
        """
        gradients = {name: p.grad for name, p in self.params.items() if p.grad is not None}
        self.layout.average(gradients.values())
        norm = self.layout.norm(gradients)
        limit = self.config.grad_clip or math.inf
        nn.utils.clip_grads_with_norm_(self.params.values(), limit, norm, foreach=True)
        return norm

    def step(self, update: int) -> float:
        """Apply the gradients as the 0-based update `update`, forget them, and return the rate that was used."""
        config = self.config
        lr = learning_rate(
            update,
            lr=config.lr,
            warmup_steps=config.warmup_steps,
            initial_lr=config.initial_lr,
            schedule=config.schedule,
            max_steps=self.max_steps,
        )
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return lr

    def state_dict(self) -> dict[str, Tensor]:
        """Return AdamW's tensors as `<moment>.<parameter name>`; parameters that were never updated count as zero."""
        return {f"{moment}.{name}": tensor for name, moment, tensor in self._state()}

    def _state(self) -> Iterator[tuple[str, str, Tensor]]:
        for name, p in self.params.items():
            state = self.adamw.state[p]
            if not state:  # AdamW makes these at the first step; a checkpoint is loaded before it
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
            for moment in ("step", "exp_avg", "exp_avg_sq"):
                yield name, moment, state[moment]
