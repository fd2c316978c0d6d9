"""What the forms of AdamW hold, and where: on the device, or on the host."""

from opensora_cli.planning.precision import STATE, Device
from opensora_cli.training.adamw8bit import BLOCK, PORTION
from schemas.optim import OptimConfig
from schemas.recipes import RunRecipe

_COPIES = 7
"""fp32 copies that an update in 8 bits makes of the numbers it works on: both moments, draws, codes and their values."""


def optimizer_bytes(recipe: RunRecipe, weights: int, device: Device) -> int:
    """Return the bytes that the moments of so many weights take on the device; on a CPU, host memory is the same memory."""
    if recipe.memory.offload_optimizer:
        return host_bytes(recipe, weights) if device == "cpu" else 0
    return moment_bytes(recipe.optim, weights)


def moment_bytes(optim: OptimConfig, weights: int) -> int:
    """Return the bytes of both moments of so many weights."""
    return 2 * weights + 2 * STATE * weights // BLOCK if optim.cls == "AdamW8bit" else weights * 2 * STATE


def host_bytes(recipe: RunRecipe, weights: int) -> int:
    """Return the bytes of host memory that an optimizer there takes: moments, gradients and a second copy of the weights."""
    return 4 * STATE * weights if recipe.memory.offload_optimizer else 0


def step_bytes(optim: OptimConfig, largest: int) -> int:
    """Return what an update takes itself, where the largest matrix has so many numbers; a fused one takes nothing."""
    return _COPIES * STATE * min(largest, PORTION) if optim.cls == "AdamW8bit" else 0
