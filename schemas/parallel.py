"""How one job is spread over processes."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost

Plugin = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp", "hybrid"]


class ParallelConfig(Schema):
    """The mesh: tensor x sequence x pipeline parallel sizes; what is left of the processes is data parallel.

    Key names are those of upstream's `plugin` and `plugin_config`.
    """

    engine: Literal["torch", "colossalai"] = Field(
        "torch",
        description="Who runs the plan: PyTorch itself, or ColossalAI's Booster (`make colossalai` installs it).",
        json_schema_extra=cost("breaks_resume"),
    )
    plugin: Plugin = Field(
        "none",
        description=(
            "What the data-parallel processes share out: none or ddp nothing, zero1 optimizer state, zero2 gradients too, "
            "zero3 and fsdp weights too; hybrid takes zero_stage and the sizes below."
        ),
        json_schema_extra=cost("changes_memory"),
    )
    tp_size: int = Field(
        1,
        ge=1,
        description="Processes that share the features of every layer (tensor parallel).",
        json_schema_extra=cost("changes_memory"),
    )
    sp_size: int = Field(
        1,
        ge=1,
        description="Processes that share the tokens of every clip (sequence parallel).",
        json_schema_extra=cost("changes_memory"),
    )
    pp_size: int = Field(
        1,
        ge=1,
        description="Processes that share the blocks (pipeline parallel).",
        json_schema_extra=cost("changes_memory"),
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0,
        description="With plugin = hybrid: what the data-parallel processes share out, as in zero1, zero2 and zero3.",
        json_schema_extra=cost("changes_memory"),
    )
    sequence_parallelism_mode: Literal["all_to_all", "ring_attn"] = Field(
        "all_to_all",
        description="With sp_size above 1: swap tokens for heads (Ulysses; needs heads), or pass keys round a ring.",
        json_schema_extra=cost("changes_memory"),
    )
    overlap_allgather: bool = Field(
        False,
        description="With sharding: gather the weights while the next forward pass begins.",
        json_schema_extra=cost("changes_memory"),
    )
    reduce_bucket_size_in_m: int = Field(
        20,
        ge=1,
        description="Gradients that are reduced in one message, millions of numbers.",
        json_schema_extra=cost("changes_memory"),
    )
    static_graph: bool = Field(
        False,
        description=(
            "Every step uses the same weights in the same order, so that ColossalAI's DDP plans its reductions once; "
            "PyTorch's own engine averages after the backward pass, with nothing to plan."
        ),
    )
    shard_size: int = Field(
        0,
        ge=0,
        description=(
            "With sharding: how many neighbouring processes share one copy of the states (hybrid sharding, for example the "
            "GPUs of one machine); 0 means all."
        ),
        json_schema_extra=cost("changes_memory"),
    )
    hang_seconds: float = Field(
        1800.0,
        gt=0,
        description="Seconds without an update after which every process writes its stacks into its log and the job stops.",
    )

    @property
    def together(self) -> int:
        """Processes that work on one batch."""
        return self.tp_size * self.sp_size * self.pp_size


class SamplingParallelConfig(ParallelConfig):
    """The mesh of a sampling job, which may also share out the branches of guidance."""

    cfg_size: int = Field(
        1,
        ge=1,
        le=3,
        description="Processes that share the guidance branches of every step: caption, negative, and negative alone.",
        json_schema_extra=cost("changes_memory"),
    )

    @property
    def together(self) -> int:
        """Processes that make one batch of clips."""
        return super().together * self.cfg_size
