"""Sampling on several processes: teams that make one batch of clips together, each team other batches.

Ranks count tensor parallel neighbours first, then sequence parallel ones, then guidance branches, then teams.
B samples, N image tokens, D features.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from opensora_cli.distributed.exchange import Group
from opensora_cli.distributed.process import Process
from opensora_cli.distributed.sequence import share_tokens
from opensora_cli.distributed.tensor import share_features
from schemas.parallel import SamplingParallelConfig

T = TypeVar("T")


class SharedBranches:
    """The guidance branches of a step, shared out over the processes of a group."""

    def __init__(self, group: Group | None = None) -> None:
        self._group = group
        self._rank, self._size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))

    def own(self, branches: Sequence[T]) -> list[T]:
        """Return the branches that this process evaluates, maybe none."""
        return list(branches[self._rank :: self._size])

    def most(self, branches: int) -> int:
        """Return how many of so many branches a process evaluates at most."""
        return -(-branches // self._size)

    def join(self, velocities: Mapping[T, Tensor], branches: Sequence[T], like_BND: Tensor) -> dict[T, Tensor]:
        """Return the velocities (B, N, D) of all `branches`, float32, from each process's own; the same on every process."""
        if self._group is None:
            return dict(velocities)
        slots = -(-len(branches) // self._size)
        own_SBND = torch.zeros(slots, *like_BND.shape, device=like_BND.device)
        for slot, velocity_BND in enumerate(velocities.values()):
            own_SBND[slot] = velocity_BND
        parts = [torch.empty_like(own_SBND) for _ in range(self._size)]
        dist.all_gather(parts, own_SBND, group=self._group)
        return {branch: parts[at % self._size][at // self._size] for at, branch in enumerate(branches)}


ALL_BRANCHES = SharedBranches()
"""One process evaluates all of them."""


@dataclass(frozen=True)
class Team:
    """The processes that make a batch together, and this one's place; by default, a process that makes all by itself."""

    number: int = 0
    """Which of the teams this is, of so many `teams`."""
    teams: int = 1
    member: int = 0
    size: int = 1
    branches: SharedBranches = ALL_BRANCHES
    _config: SamplingParallelConfig | None = None
    _all: Group | None = None
    _tokens: Group | None = None
    _features: Group | None = None
    everyone_decodes: bool = False
    """Whether each process decodes every clip, instead of its share."""

    @property
    def is_leader(self) -> bool:
        """Whether this process speaks for the team."""
        return self.member == 0

    @property
    def divides_weights(self) -> bool:
        """Whether each process keeps a share of the denoiser's weights alone."""
        return self._features is not None

    def batches(self, batches: Sequence[T]) -> list[T]:
        """Return the team's share of a job."""
        return list(batches[self.number :: self.teams])

    def own(self, clips: Sequence[T]) -> list[T]:
        """Return the clips of a batch that this process decodes, maybe none."""
        return list(clips) if self.everyone_decodes else list(clips[self.member :: self.size])

    def agree(self, flags: Sequence[bool]) -> list[bool]:
        """Return, for each flag, whether it is true in all processes of the team; they have to ask together."""
        if self._all is None or not flags:
            return list(flags)
        common = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(common, dist.ReduceOp.MIN, group=self._all)
        return [bool(flag) for flag in common]

    def spread(self, denoiser: nn.Module) -> None:
        """Share out a denoiser's features and tokens; it is called as before and gives the same. Every member has to ask.

        Raises OsoraError for a family without a plan for that.
        """
        if self._features is None and self._tokens is None:
            return
        if self._features is not None:
            share_features(denoiser, self._features)
            denoiser.requires_grad_(False)
        if self._tokens is not None:
            assert self._config is not None, "a team that shares tokens was formed by a recipe"
            share_tokens(denoiser, self._tokens, self._config)


def form_team(config: SamplingParallelConfig, process: Process) -> Team:
    """Find this process's team; every process of the job has to.

    A member that does not answer ends the job after the recipe's hang_seconds.
    """
    place = process.data_parallel
    if config.together == 1 or process.world_size == 1:
        return Team(place.rank, place.size)
    ranks = torch.arange(process.world_size).view(-1, config.cfg_size, config.sp_size, config.tp_size)
    patience = timedelta(seconds=config.hang_seconds)

    def group(*axes: int) -> Group | None:
        """Return this process's group along these axes of `ranks`."""
        size = math.prod(ranks.shape[axis] for axis in axes)
        if size == 1:
            return None
        rest = [axis for axis in range(ranks.dim()) if axis not in axes]
        lists = ranks.permute(*rest, *axes).reshape(-1, size).tolist()
        groups: tuple[Group, Any] = dist.new_subgroups_by_enumeration(lists, patience)  # type: ignore[no-untyped-call]
        return groups[0]

    return Team(
        place.rank,
        place.size,
        process.rank % config.together,
        config.together,
        SharedBranches(group(1)),
        config,
        group(1, 2, 3),
        group(2),
        group(3),
    )
