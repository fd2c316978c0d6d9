"""Processes that `torchrun` started, or the only one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from opensora_cli.distributed.process import PATIENCE, Process, pick_device


@contextmanager
def launched_process(device: str) -> Iterator[Process]:
    """Take this process's place among those of `torchrun`, and its GPU; without `torchrun` it is the only process.

    Raises OsoraError if the recipe's `device` is not there.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    picked = pick_device(device)
    if world_size == 1:
        yield Process(rank=0, world_size=1, device=picked)
        return
    if picked.type == "cuda":
        picked = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Process(rank=dist.get_rank(), world_size=world_size, device=picked)
    finally:
        dist.destroy_process_group()


def any_process(process: Process, flag: bool) -> bool:
    """Wait for all processes, and return whether `flag` is true in one of them."""
    if process.world_size == 1:
        return flag
    counted = torch.tensor(int(flag))
    dist.all_reduce(counted)
    return bool(counted)
