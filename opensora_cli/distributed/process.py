"""Which process this is, and the device it works on."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from opensora_cli.distributed.data_parallel import DataParallel, data_parallel
from opensora_cli.distributed.place import Place, find_place
from schemas.checks.parallel import world_size_problem
from schemas.errors import OsoraError
from schemas.parallel import ParallelConfig

PATIENCE = timedelta(days=7)
"""How long processes wait that work for themselves; one that ends breaks the connection, which is noticed at once."""
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

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of equally shaped tensors of all processes, the same on each."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def totals(self, counts: Sequence[int]) -> list[int]:
        """Return the sums of the counts of all processes, the same on each. Does not wait for the GPU."""
        if self.world_size == 1:
            return list(counts)
        total = torch.tensor(counts, dtype=torch.int64)
        dist.all_reduce(total)
        return [int(count) for count in total]

    def gather_tensors(self, values: Tensor) -> list[Tensor]:
        """Return equally shaped tensors, on the CPU, of the processes that see different data, in their order."""
        if self.world_size == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(parts, values)
        return parts[:: self.together]

    def from_main(self, text: str | None) -> str | None:
        """Return the main process's text on every process."""
        if self.world_size == 1:
            return text
        message = torch.frombuffer(bytearray(json.dumps(text).encode()), dtype=torch.uint8)
        size = torch.tensor(len(message))
        dist.broadcast(size, 0)
        if not self.is_main:
            message = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(message, 0)
        received: str | None = json.loads(bytes(message.tolist()))
        return received

    def gather(self, text: str) -> list[str]:
        """Wait for all processes, and return the texts of all in their order, on each."""
        if self.world_size == 1:
            return [text]
        message = torch.frombuffer(bytearray(json.dumps(text).encode()), dtype=torch.uint8)
        sizes = [torch.tensor(0) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor(len(message)))
        padded = message.new_zeros(max(map(int, sizes)))
        padded[: len(message)] = message
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return [json.loads(bytes(part[:size].tolist())) for part, size in zip(parts, sizes, strict=True)]


def start_process(device: str, config: ParallelConfig, patience: timedelta | None = None) -> Process:
    """Join the job that the environment describes (osora's launcher, torchrun, SLURM), or be the only process of one.

    `device` is "auto", "cpu" or "cuda"; processes wait for one another for the recipe's hang_seconds, or for `patience`.
    Raises OsoraError when the mesh does not suit the number of processes.
    """
    place = find_place(os.environ)
    world_size = place.world_size if place else 1
    if problem := world_size_problem(config, world_size):
        raise OsoraError(problem)
    chosen = pick_device(device)
    if place is None and config.engine == "torch":
        return Process(rank=0, world_size=1, device=chosen)
    if place is None:
        from torch.distributed import HashStore  # type: ignore[attr-defined]  # it is documented there

        dist.init_process_group(_backend(chosen), store=HashStore(), rank=0, world_size=1)
        return Process(rank=0, world_size=1, device=chosen)  # ColossalAI asks a job of one for its groups too
    if chosen.type == "cuda":
        if place.local_rank >= torch.cuda.device_count():
            raise OsoraError(
                f"process {place.local_rank + 1} of this machine has no GPU of its own: there are "
                f'{torch.cuda.device_count()}. Start at most so many, or set device = "cpu".'
            )
        chosen = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(chosen)
    _join(place, chosen, patience or timedelta(seconds=config.hang_seconds))
    return spread(Process(place.rank, place.world_size, chosen), config)


def spread(process: Process, config: ParallelConfig) -> Process:
    """Return the process as a recipe's mesh sees it. Raises OsoraError when that does not suit the number of processes."""
    if problem := world_size_problem(config, process.world_size):
        raise OsoraError(problem)
    return replace(process, together=config.together)


def _join(place: Place, device: torch.device, patience: timedelta) -> None:
    # torchrun keeps a store of its own at the address, which only the rendezvous by environment knows to use.
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "MASTER_ADDR": place.master_address,
        "MASTER_PORT": str(place.master_port),
    }
    dist.init_process_group(_backend(device), init_method="env://", timeout=patience)


def _backend(device: torch.device) -> str:
    """Small messages about the run itself go between the CPUs, so that they never wait for a GPU."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def leave() -> None:
    """Leave the job, if this process is one of several."""
    if dist.is_initialized():
        dist.destroy_process_group()


def pick_device(device: str) -> torch.device:
    """Turn a recipe's `device` into a torch device. Raises OsoraError if "cuda" is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise OsoraError('device = "cuda": this machine has no usable CUDA GPU. Use device = "auto" or "cpu".')
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
