"""The STDiT denoiser of Open-Sora 1.0."""

from typing import Literal

from pydantic import Field

from schemas.base import cost
from schemas.denoiser.latent import LatentDenoiser


class STDiTConfig(LatentDenoiser):
    """A transformer whose blocks attend within a frame, then along time, with fixed position tables.

    The defaults are STDiT-XL/2, the model of Open-Sora 1.0; key names are upstream's.
    """

    type: Literal["stdit"] = Field("stdit", description="The model family.")
    allow_missing: tuple[str, ...] = Field(
        (),
        description='Globs of keys that the weights may lack, and that start anew: ["blocks.*.attn_temp.*"] for those of an '
        "image model.",
        json_schema_extra=cost("changes_numerics"),
    )
    space_scale: float = Field(
        1.0,
        gt=0,
        description="What places within a frame are divided by: 0.5 for 256 pixels, 1 for 512 pixels.",
        json_schema_extra=cost("changes_numerics"),
    )
    time_scale: float = Field(
        1.0,
        gt=0,
        description="What places in time are divided by (frames).",
        json_schema_extra=cost("changes_numerics"),
    )
    pred_sigma: bool = Field(
        True,
        description="Whether the model has outputs for a variance.",
        json_schema_extra=cost("breaks_resume"),
    )
    model_max_length: int = Field(
        120, ge=1, description="Tokens of a text, and of the null one.", json_schema_extra=cost("breaks_resume")
    )

    @property
    def takes_frames(self) -> bool:
        """Whether some frames of a clip may be given."""
        return True

    @property
    def output_channels(self) -> int:
        """Channels of the answer: the latent's, twice where it predicts a variance too."""
        return self.in_channels * (2 if self.pred_sigma else 1)
