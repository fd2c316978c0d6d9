"""The optimizer and its learning rate, as a function of the update alone."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from torch import Tensor, nn

from opensora_cli.distributed.layout import Layout
from opensora_cli.training.adamw import DeviceAdamW, Updater
from opensora_cli.training.adamw8bit import AdamW8bit
from opensora_cli.training.host_adamw import HostAdamW
from opensora_cli.training.release import Released
from schemas.errors import OsoraError
from schemas.memory import MemoryConfig
from schemas.optim import OptimConfig

IN_PLACE = MemoryConfig()
"""Weights, gradients and moments on the device, all of them."""
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
    """AdamW in the recipe's form, with its schedule and clipping; its numbers are the recipe's, tensors the checkpoint's."""

    released: Released | None = None

    def __init__(
        self,
        module: nn.Module,
        config: OptimConfig,
        max_steps: int | None,
        layout: Layout | None = None,
        memory: MemoryConfig = IN_PLACE,
    ) -> None:
        self.config = config
        self.layout = layout or Layout()
        self.max_steps = max_steps
        self.params = {name: p for name, p in module.named_parameters() if p.requires_grad}
        make = partial(_updater, config=config, memory=memory)
        if memory.release_gradients:
            if not self.layout.alone:
                raise OsoraError(
                    "memory.release_gradients: several processes average their gradients after the backward pass, when these "
                    "would be gone. Start one process, or set memory.release_gradients = false."
                )
            self.released = Released(self.params, make)
        self.updater: Updater = self.released or make(self.params)

    def begin(self, update: int, before_change: Callable[[], None] | None = None) -> None:
        """Prepare for the backward pass of the 0-based update `update`, which applies released gradients on its way.

        Where it does, it calls `before_change` before each.
        """
        if self.released is not None:
            self.released.begin(self.rate(update), before_change)

    def has_gradients(self) -> bool:
        """Whether a loss has reached the parameters since the last update."""
        if self.released is not None:
            return self.released.any
        return any(p.grad is not None for p in self.params.values())

    def clip(self) -> Tensor:
        """Average the gradients over processes, clip them to `grad_clip` (0: do not) and return their norm before it.

        The norm is a scalar on the device.
        """
        if self.released is not None:
            return self.released.norm()
        gradients = {name: p.grad for name, p in self.params.items() if p.grad is not None}
        self.layout.average(gradients.values())
        norm = self.layout.norm(gradients)
        limit = self.config.grad_clip or math.inf
        nn.utils.clip_grads_with_norm_(self.params.values(), limit, norm, foreach=True)
        return norm

    def step(self, update: int) -> float:
        """Apply the gradients as the 0-based update `update`, forget them, and return the rate that was used."""
        lr = self.rate(update)
        self.updater.step(lr)
        return lr

    def rate(self, update: int) -> float:
        """Return the learning rate of the 0-based update `update`."""
        config = self.config
        return learning_rate(
            update,
            lr=config.lr,
            warmup_steps=config.warmup_steps,
            initial_lr=config.initial_lr,
            schedule=config.schedule,
            max_steps=self.max_steps,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors as `<moment>.<parameter name>`; those of parameters never updated are zero."""
        return {f"{moment}.{name}": tensor for name, moment, tensor in self.updater.state()}


def _updater(params: Mapping[str, nn.Parameter], config: OptimConfig, memory: MemoryConfig) -> Updater:
    if memory.offload_optimizer:
        return HostAdamW(params, config)
    return AdamW8bit(params, config) if config.cls == "AdamW8bit" else DeviceAdamW(params, config)
