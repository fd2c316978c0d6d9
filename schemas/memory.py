"""Trading time for memory."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class MemoryConfig(Schema):
    """Recompute activations in the backward pass instead of keeping them, and move to host memory what can wait there."""

    grad_checkpoint: bool = Field(
        False,
        description="Whether to recompute activations at all; of an autoencoder, those of every stage.",
        json_schema_extra=cost("changes_memory"),
    )
    grad_ckpt_settings: tuple[int, int] = Field(
        (100, 100),
        description="How many double and single blocks of a denoiser, from the first, are recomputed.",
        json_schema_extra=cost("changes_memory"),
    )
    grad_ckpt_every: int = Field(
        1,
        ge=1,
        description="Of those blocks, every n-th is recomputed: 1 all of them, 2 the first, third, fifth and so on.",
        json_schema_extra=cost("changes_memory"),
    )
    grad_ckpt_keep: Literal["nothing", "products"] = Field(
        "nothing",
        description=(
            "What a recomputed block keeps beside its inputs: nothing, or the results of matrix products and attention, so "
            "that only cheap operations run twice."
        ),
        json_schema_extra=cost("changes_memory"),
    )
    grad_ckpt_buffer_size: int = Field(
        0,
        ge=0,
        description="Pinned host memory that inputs of recomputed blocks may wait in, bytes; 0 keeps them on the device.",
        json_schema_extra=cost("changes_memory"),
    )
    compile: bool = Field(
        False,
        description="Compile the denoiser's blocks: a minute at the start, then faster updates and fewer activations.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    split_on_oom: bool = Field(
        False,
        description="Where a GPU's memory runs out, do the micro-batch in halves; one process and a denoiser only.",
        json_schema_extra=cost("changes_memory"),
    )
    fp8_linear: bool = Field(
        False,
        description="Compute the products of a denoiser's blocks in 8-bit floats, forward and backward (Ada, Hopper and later).",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    offload_optimizer: bool = Field(
        False,
        description="Keep the trained model's optimizer state in pinned host memory, and update there.",
        json_schema_extra=cost("changes_memory"),
    )
    release_gradients: bool = Field(
        False,
        description="Update every weight in the backward pass, as soon as its gradient is complete, and free that gradient.",
        json_schema_extra=cost("changes_memory"),
    )
