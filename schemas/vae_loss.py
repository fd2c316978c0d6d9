"""The loss of an autoencoder."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class VaeLossConfig(Schema):
    """Reconstruction plus a KL term; sums over the pixels of a frame, averaged over frames."""

    reconstruction_loss: Literal["l1", "l2"] = Field(
        "l1", description="Distance between a clip and its reconstruction.", json_schema_extra=cost("changes_numerics")
    )
    kl_loss_weight: float = Field(
        1e-6,
        ge=0,
        description="Weight of the KL term against a unit Gaussian.",
        json_schema_extra=cost("changes_numerics"),
    )
