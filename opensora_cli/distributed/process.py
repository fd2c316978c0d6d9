"""Which process this is, and the device it works on."""

from dataclasses import dataclass

import torch

from opensora_cli.distributed.data_parallel import DataParallel, data_parallel
from schemas.errors import OsoraError

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Process:
    """One process of a job: its rank among `world_size`, its device, and how many processes work on a batch together."""

    rank: int
    world_size: int
    device: torch.device
    together: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def data_parallel(self) -> DataParallel:
        """Its place among the processes that see different data."""
        return data_parallel(self.rank, self.world_size, self.together)


def single_process(device: str) -> Process:
    """Return the only process of a job, on `device` ("auto", "cpu" or "cuda")."""
    return Process(rank=0, world_size=1, device=pick_device(device))


def pick_device(device: str) -> torch.device:
    """Turn a recipe's `device` into a torch device. Raises OsoraError if "cuda" is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise OsoraError('device = "cuda": this machine has no usable CUDA GPU. Use device = "auto" or "cpu".')
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
