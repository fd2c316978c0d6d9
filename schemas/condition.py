"""Visual conditions: which frames of a clip the denoiser is shown."""

from typing import Any, Literal, get_args

from pydantic import Field

from schemas.base import Schema, cost

ConditionName = Literal[
    "t2v", "i2v_head", "i2v_tail", "i2v_loop", "v2v_head", "v2v_tail", "v2v_head_easy", "v2v_tail_easy"
]
AnyConditionName = ConditionName | Literal["v2v_head_half", "v2v_tail_half"]
HALVES = {"v2v_head_half": "v2v_head_easy", "v2v_tail_half": "v2v_tail_easy"}
"""Names in Open-Sora's inference configs: 65 of 129 frames are one half."""


def full_name(name: Any) -> Any:
    """Return the condition that a name of Open-Sora's stands for; anything else stays as it is."""
    return HALVES.get(name, name) if isinstance(name, str) else name


class ConditionWeights(Schema):
    """Relative weights with which each condition is drawn for a training clip; they need not add up to 1."""

    t2v: float = Field(1.0, ge=0, description="No frames: text only.", json_schema_extra=cost("changes_numerics"))
    i2v_head: float = Field(0.0, ge=0, description="The first frame.", json_schema_extra=cost("changes_numerics"))
    i2v_tail: float = Field(0.0, ge=0, description="The last frame.", json_schema_extra=cost("changes_numerics"))
    i2v_loop: float = Field(
        0.0, ge=0, description="The first and the last frame.", json_schema_extra=cost("changes_numerics")
    )
    v2v_head: float = Field(
        0.0,
        ge=0,
        description="The first 33 frames (32 if the autoencoder is not causal).",
        json_schema_extra=cost("changes_numerics"),
    )
    v2v_tail: float = Field(
        0.0,
        ge=0,
        description="The last 33 frames (32 if the autoencoder is not causal).",
        json_schema_extra=cost("changes_numerics"),
    )
    v2v_head_easy: float = Field(
        0.0,
        ge=0,
        description="The first 65 frames (64 if the autoencoder is not causal).",
        json_schema_extra=cost("changes_numerics"),
    )
    v2v_tail_easy: float = Field(
        0.0,
        ge=0,
        description="The last 65 frames (64 if the autoencoder is not causal).",
        json_schema_extra=cost("changes_numerics"),
    )

    def weights(self) -> dict[ConditionName, float]:
        """Return the conditions that can be drawn, with their weights."""
        return {name: weight for name in get_args(ConditionName) if (weight := getattr(self, name)) > 0}
