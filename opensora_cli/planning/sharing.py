"""How a recipe spreads a model over processes, and what of it one process holds."""

from collections.abc import Iterator
from dataclasses import dataclass

from opensora_cli.distributed.stage import sharing_stage
from opensora_cli.planning.segments import Sharding
from schemas.checks.parallel import world_size_problem
from schemas.errors import UsageError
from schemas.parallel import ParallelConfig, SamplingParallelConfig


@dataclass(frozen=True)
class Sharing:
    """The mesh: tensor, sequence, pipeline and data parallel sizes, and the stage of sharing among equal processes."""

    tensor: int
    sequence: int
    pipeline: int
    data: int
    stage: int
    overlap: bool
    bucket: int
    shard_size: int = 0
    branches: int = 1
    """Processes that share out the branches of guidance."""
    weights_stay_whole: bool = False
    """The shares of ColossalAI's ZeRO are flat pieces, which the average does not follow."""

    @classmethod
    def of(cls, config: ParallelConfig, world_size: int) -> "Sharing":
        """Return the mesh of so many processes. Raises UsageError where the sizes do not divide them."""
        if problem := world_size_problem(config, world_size):
            raise UsageError(f"--world-size {world_size}: {problem}")
        bucket = config.reduce_bucket_size_in_m * 1_000_000 * 4 if world_size > 1 else 0
        return cls(
            config.tp_size,
            config.sp_size,
            config.pp_size,
            world_size // config.together,
            sharing_stage(config),
            config.overlap_allgather,
            bucket,
            config.shard_size,
            config.cfg_size if isinstance(config, SamplingParallelConfig) else 1,
            config.engine == "colossalai",
        )

    @property
    def equals(self) -> int:
        """Processes that would hold the same weights."""
        return self.data * self.sequence

    @property
    def sharers(self) -> int:
        """How many of them share out one optimizer, gradients, weights, as the stage says."""
        return self.shard_size or self.equals

    @property
    def optimizer(self) -> int:
        """Over how many processes the moments are shared out."""
        return self.sharers if self.stage >= 1 else 1

    @property
    def weights(self) -> int:
        """Over how many processes the weights are shared out between updates."""
        return 1 if self.weights_stay_whole else self.optimizer

    @property
    def gathers_all(self) -> bool:
        """Whether all weights are gathered for an update, and not one block's at a time."""
        return self.sharers > 1 and self.stage in (1, 2) and not self.weights_stay_whole

    @property
    def average(self) -> int:
        """Over how many processes the average of the weights is shared out."""
        return 1 if self.weights_stay_whole else self.optimizer

    @property
    def sharding(self) -> Sharding:
        """What becomes of gradients and weights in an update."""
        return Sharding(
            weights=self.sharers if self.stage >= 3 else 1,
            gradients=self.sharers if self.stage >= 2 else 1,
            gathered=2 if self.overlap else 1,
            bucket=self.bucket if self.equals > 1 and self.stage < 3 else 0,
        )

    def lines(self) -> Iterator[str]:
        """Say how each kind of sharing divides."""
        if self.tensor > 1:
            yield f"tensor parallel {self.tensor}: features of attention and MLP divided by it, the residual stream whole"
        if self.sequence > 1:
            yield f"sequence parallel {self.sequence}: tokens divided by it; each of them encodes the whole clip"
        if self.branches > 1:
            yield f"guidance branches shared out over {self.branches}: each process holds the whole denoiser"
        if self.pipeline > 1:
            yield f"pipeline parallel {self.pipeline}: blocks divided by it, up to {self.pipeline} micro-batches in flight"
        at_rest = "optimizer" if self.weights_stay_whole else "optimizer, average and weights at rest"
        shared = [at_rest, "gradients", "gathered weights"][: self.stage]
        if self.equals > 1:
            what = ", ".join(shared) if shared else "nothing"
            yield f"data parallel {self.data} (x sequence {self.sequence}): {what} divided by {self.sharers}"
