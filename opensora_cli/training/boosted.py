"""The optimizer of ColossalAI's engine: HybridAdam where its kernels load, PyTorch's AdamW elsewhere."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from opensora_cli.distributed.colossal import Boosted
from opensora_cli.distributed.layout import Layout
from opensora_cli.training.adamw import fused_adamw
from opensora_cli.training.optim import IN_PLACE, Optimizer
from schemas.memory import MemoryConfig
from schemas.optim import OptimConfig


class BoostedOptimizer(Optimizer):
    """AdamW behind the interface of `Optimizer`, which a plugin of ColossalAI's steps, on whole weights or on shares."""

    layout: Boosted

    def __init__(self, module: nn.Module, config: OptimConfig, max_steps: int | None, layout: Boosted) -> None:
        self.config = config
        self.layout = layout
        self.max_steps = max_steps
        self.params = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._adam = hybrid_adam(self.params, config) or fused_adamw(list(self.params.values()), config)
        self._counts_in_python = not isinstance(self._adam, torch.optim.AdamW)
        self._plugin = layout.boost(module, self._adam)

    @property
    def kind(self) -> str:
        """What it is that steps: HybridAdam or AdamW."""
        return type(self._adam).__name__

    def has_gradients(self) -> bool:
        """Whether a loss has reached the parameters since the last update."""
        return bool(self.layout.gradients(self.params))

    def clip(self) -> Tensor:
        """Clip the averaged gradients to `grad_clip` (0: do not) and return their norm before it, a scalar on the device."""
        gradients = self.layout.gradients(self.params)
        norm = self.layout.norm(gradients)
        if self.config.grad_clip:
            torch._foreach_mul_(list(gradients.values()), (self.config.grad_clip / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self, update: int) -> float:
        """Let the plugin apply the gradients as the 0-based update `update`, forget them, and return the rate."""
        lr = self.rate(update)
        for group in self._adam.param_groups:
            group["lr"] = lr
        # HybridAdam counts its steps in Python, checkpoints in tensors.
        for state in self._adam.state.values() if self._counts_in_python else ():
            state["step"] = int(state["step"])
        self._plugin.step()
        self._plugin.zero_grad()
        for state in self._adam.state.values() if self._counts_in_python else ():
            state["step"] = torch.tensor(float(state["step"]))
        return lr

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors as `<moment>.<parameter name>`, flat shares with ZeRO; those never updated are zero."""
        found: dict[str, Tensor] = {}
        for name, p in self.params.items():
            updated = self.layout.updated(p)
            state = self._adam.state[updated]
            if not state:  # Adam makes these at the first step; a checkpoint is loaded before it
                state["step"] = torch.zeros((), device="cpu" if self._counts_in_python else p.device)
                state["exp_avg"] = torch.zeros_like(updated)
                state["exp_avg_sq"] = torch.zeros_like(updated)
            found |= {f"{moment}.{name}": state[moment] for moment in ("step", "exp_avg", "exp_avg_sq")}
        return found


def make_optimizer(
    module: nn.Module, config: OptimConfig, max_steps: int | None, layout: Layout, memory: MemoryConfig = IN_PLACE
) -> Optimizer:
    """Return the optimizer of a module, as the engine that laid it out has it."""
    if isinstance(layout, Boosted):
        return BoostedOptimizer(module, config, max_steps, layout)
    return Optimizer(module, config, max_steps, layout, memory)


def hybrid_adam(params: Mapping[str, nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer | None:
    """Return ColossalAI's HybridAdam over parameters on a GPU; None on a CPU, and where its kernels cannot be built."""
    if not all(p.is_cuda for p in params.values()):
        return None
    from colossalai.nn.optimizer import HybridAdam

    try:
        optimizer: torch.optim.Optimizer = HybridAdam(
            params.values(), lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
        )
    except (AssertionError, ImportError, OSError, RuntimeError) as error:  # it builds them with the machine's compiler
        reason = str(error).strip().split("\n", 1)[0]
        warnings.warn(f"HybridAdam does not load here, PyTorch's AdamW updates instead: {reason}", stacklevel=2)
        return None
    return optimizer
