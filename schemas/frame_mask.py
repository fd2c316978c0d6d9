"""Which latent frames of a training clip are given, and not denoised: Open-Sora 1.1 and 1.2."""

from typing import Literal, get_args

from pydantic import Field

from schemas.base import Schema, cost

FrameMaskName = Literal[
    "identity",
    "random",
    "interpolate",
    "quarter_random",
    "quarter_head",
    "quarter_tail",
    "quarter_head_tail",
    "image_random",
    "image_head",
    "image_tail",
    "image_head_tail",
]
"""identity gives no frame."""
OLD_NAMES = {"intepolate": "interpolate"}
"""How Open-Sora's configs spell it."""


class MaskRatios(Schema):
    """How often each kind of mask is drawn for a clip (probabilities); what is left to 1 is for clips with no frame given."""

    random: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A tenth to nine tenths of the frames, anywhere.",
        json_schema_extra=cost("changes_numerics"),
    )
    interpolate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Every second frame, from the first or the second on.",
        json_schema_extra=cost("changes_numerics"),
    )
    quarter_random: float = Field(
        0.0,
        ge=0,
        le=1,
        description="One frame up to a quarter of the clip, in a row, anywhere.",
        json_schema_extra=cost("changes_numerics"),
    )
    quarter_head: float = Field(
        0.0,
        ge=0,
        le=1,
        description="One frame up to a quarter of the clip, at the start.",
        json_schema_extra=cost("changes_numerics"),
    )
    quarter_tail: float = Field(
        0.0,
        ge=0,
        le=1,
        description="One frame up to a quarter of the clip, at the end.",
        json_schema_extra=cost("changes_numerics"),
    )
    quarter_head_tail: float = Field(
        0.0,
        ge=0,
        le=1,
        description="One frame up to a quarter of the clip at either end, as many at both.",
        json_schema_extra=cost("changes_numerics"),
    )
    image_random: float = Field(
        0.0, ge=0, le=1, description="One frame, anywhere.", json_schema_extra=cost("changes_numerics")
    )
    image_head: float = Field(
        0.0, ge=0, le=1, description="The first frame.", json_schema_extra=cost("changes_numerics")
    )
    image_tail: float = Field(
        0.0, ge=0, le=1, description="The last frame.", json_schema_extra=cost("changes_numerics")
    )
    image_head_tail: float = Field(
        0.0, ge=0, le=1, description="The first and the last frame.", json_schema_extra=cost("changes_numerics")
    )

    def ratios(self) -> dict[FrameMaskName, float]:
        """Return the kinds that can be drawn, with their probabilities; what is left to 1 is identity's."""
        return {name: ratio for name in get_args(FrameMaskName) if (ratio := getattr(self, name, 0.0)) > 0}
