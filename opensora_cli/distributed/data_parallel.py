"""Which processes see which data."""

from typing import NamedTuple


class DataParallel(NamedTuple):
    """A process's place among those that see different data."""

    rank: int
    size: int


def data_parallel(rank: int, world_size: int, tp_size: int = 1, sp_size: int = 1, pp_size: int = 1) -> DataParallel:
    """Return the data-parallel rank and size of a process.

    The processes of a tensor, sequence or pipeline parallel group are neighbours, work on one batch together and have the same
    data-parallel rank. Raises ValueError when the groups do not fill the processes evenly.
    """
    together = tp_size * sp_size * pp_size
    if not 0 <= rank < world_size or together < 1 or world_size % together:
        raise ValueError(
            f"rank {rank} of {world_size} processes in groups of {together} (tensor {tp_size} x sequence {sp_size} x pipeline "
            f"{pp_size}): the number of processes has to be a multiple of the group's size, and the rank below it"
        )
    return DataParallel(rank // together, world_size // together)
