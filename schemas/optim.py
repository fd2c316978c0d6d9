"""The optimizer, its schedule, and the average of the weights."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class OptimConfig(Schema):
    """AdamW with linear warm-up; updates, not micro-batches, move the schedule."""

    cls: Literal["AdamW", "AdamW8bit"] = Field(
        "AdamW",
        description="The rule: AdamW with moments in fp32, or in 8 bits per number.",
        json_schema_extra=cost("breaks_resume", "changes_memory", "changes_numerics"),
    )
    lr: float = Field(
        1e-4, gt=0, description="Learning rate after warm-up.", json_schema_extra=cost("changes_numerics")
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999),
        description="Decay of the gradient's first and second moment.",
        json_schema_extra=cost("changes_numerics"),
    )
    eps: float = Field(
        1e-8, gt=0, description="Added to the root of the second moment.", json_schema_extra=cost("changes_numerics")
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Decoupled weight decay per update.", json_schema_extra=cost("changes_numerics")
    )
    grad_clip: float = Field(
        1.0,
        ge=0,
        description="Largest global gradient norm; 0 does not clip.",
        json_schema_extra=cost("changes_numerics"),
    )
    accumulation_steps: int = Field(
        1, ge=1, description="Micro-batches per update.", json_schema_extra=cost("breaks_resume", "changes_numerics")
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        description="Updates over which the rate rises linearly to lr.",
        json_schema_extra=cost("changes_numerics"),
    )
    initial_lr: float = Field(
        1e-6,
        ge=0,
        description="Learning rate that the warm-up of a constant or linear schedule starts from; that of a cosine starts at 0.",
        json_schema_extra=cost("changes_numerics"),
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant",
        description="After warm-up: constant, or down to 0 at max_steps, as half a cosine or in a line.",
        json_schema_extra=cost("changes_numerics"),
    )
    max_skips: int = Field(
        0,
        ge=0,
        description="Updates with a loss or gradient that is not finite that a run may leave out; 0 stops at the first.",
    )
    max_skips_in_a_row: int = Field(3, ge=1, description="How many of them may follow one another.")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay per update of an fp32 average of the weights; unset keeps none.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
