"""What processes with equal weights share out, and the refusal of what a model's family cannot."""

from schemas.errors import OsoraError
from schemas.parallel import ParallelConfig

_STAGES = {"none": 0, "ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}


def sharing_stage(config: ParallelConfig) -> int:
    """Return what is shared out: nothing (0), optimizer state (1), gradients too (2), weights too (3)."""
    return config.zero_stage if config.plugin == "hybrid" else _STAGES[config.plugin]


def no_plan(model: object, what: str, instead: str) -> OsoraError:
    """Return the error of a model whose family has no plan for sharing out weights, tokens or features."""
    return OsoraError(f"parallel: {type(model).__name__} has no plan for sharing out {what}. Use {instead}.")
