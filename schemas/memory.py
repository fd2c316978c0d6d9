"""Trading time for memory."""

from pydantic import Field

from schemas.base import Schema, cost


class MemoryConfig(Schema):
    """Activation checkpointing: recompute a block's activations in the backward pass instead of keeping them."""

    grad_checkpoint: bool = Field(
        False, description="Whether to recompute activations at all.", json_schema_extra=cost("changes_memory")
    )
    grad_ckpt_settings: tuple[int, int] = Field(
        (100, 100),
        description="How many double and single blocks, from the first, are recomputed.",
        json_schema_extra=cost("changes_memory"),
    )
