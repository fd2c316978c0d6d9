"""Where a process stands in a job of several, read from the environment that its launcher made."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import UsageError

_FIRST_PORT, _PORTS = 20_000, 10_000
"""SLURM names no port: jobs take one by their number."""


@dataclass(frozen=True)
class Place:
    """Rank among all processes and on this machine, and where the processes meet."""

    rank: int
    world_size: int
    local_rank: int
    master_address: str
    master_port: int


def find_place(environment: Mapping[str, str]) -> Place | None:
    """Return the place that osora's launcher, torchrun or SLURM's srun gave this process; None outside of a job.

    Raises UsageError when the variables are incomplete or are no numbers.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return Place(
                int(environment["RANK"]),
                int(environment["WORLD_SIZE"]),
                int(environment.get("LOCAL_RANK", "0")),
                environment["MASTER_ADDR"],
                int(environment["MASTER_PORT"]),
            )
        # Only srun sets this one: a batch script's own SLURM_NTASKS does not mean that it is one of them.
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            job = int(environment["SLURM_JOB_ID"])
            hosts = environment.get("SLURM_STEP_NODELIST", "") or environment["SLURM_JOB_NODELIST"]
            return Place(
                int(environment["SLURM_PROCID"]),
                int(environment["SLURM_STEP_NUM_TASKS"]),
                int(environment["SLURM_LOCALID"]),
                environment.get("MASTER_ADDR", first_host(hosts)),
                int(environment.get("MASTER_PORT", _FIRST_PORT + job % _PORTS)),
            )
    except KeyError as error:
        raise UsageError(
            f"the environment names a rank and not {error.args[0]}: start the job by torchrun or srun."
        ) from None
    except ValueError as error:
        raise UsageError(f"the environment's ranks cannot be read: {error}") from None
    return None


def first_host(nodes: str) -> str:
    """Return the first host of SLURM's list, whose numbers stand in brackets: `gpu[07-09,12],login1` is `gpu07`."""
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
