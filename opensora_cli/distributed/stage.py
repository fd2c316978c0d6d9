"""What processes with equal weights share out."""

from schemas.parallel import ParallelConfig

_STAGES = {"none": 0, "ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}


def sharing_stage(config: ParallelConfig) -> int:
    """Return what is shared out: nothing (0), optimizer state (1), gradients too (2), weights too (3)."""
    return config.zero_stage if config.plugin == "hybrid" else _STAGES[config.plugin]
