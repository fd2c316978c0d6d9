"""Compiling a denoiser block by block: blocks of one kind share their graphs, so 57 of them compile as fast as three."""

from collections.abc import Callable

import torch
from torch import nn
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import calculate_time_spent

from opensora_models.layers.units import units_of

Backend = str | Callable
GRAPHS = 32
"""Most variants of a block: one or more clips, last block or not, a single size or any, with gradients or without."""


def compile_blocks(denoiser: nn.Module, *, any_size: bool, backend: Backend = "inductor") -> None:
    """Compile every block in place; parameters keep their names, and hooks and recomputing stay outside.

    With `any_size` the first graph already serves every number of tokens, which suits training on buckets. Without,
    the first size has a graph of its own, the fastest, and all further sizes share one. Compiling happens in the first
    forward (and backward) passes and takes about a minute; `compile_seconds` tells.
    """
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, GRAPHS)
    for block in units_of(denoiser):
        block.forward = torch.compile(block.forward, dynamic=True if any_size else None, backend=backend)


def compile_seconds() -> float:
    """Return the seconds that this process has spent compiling so far."""
    return calculate_time_spent()["total_wall_time"]
