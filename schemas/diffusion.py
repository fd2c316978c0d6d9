"""Rectified flow: how noise and data are mixed, and which times are trained."""

from pydantic import Field

from schemas.base import Schema, cost


class DiffusionConfig(Schema):
    """Times are logit-normal, then shifted towards noise for larger and longer clips (SD3, section 5.3.2)."""

    sigma_min: float = Field(
        1e-5,
        ge=0,
        lt=1,
        description="Share of the data left in pure noise (unitless).",
        json_schema_extra=cost("changes_numerics"),
    )
    guidance: float = Field(
        4.0,
        ge=0,
        description="Guidance scale fed to a model with guidance_embed while it trains.",
        json_schema_extra=cost("changes_numerics"),
    )
