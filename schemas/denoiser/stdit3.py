"""The STDiT3 denoiser of Open-Sora 1.2."""

from typing import Literal

from pydantic import Field

from schemas.base import cost
from schemas.denoiser.latent import LatentDenoiser


class STDiT3Config(LatentDenoiser):
    """A transformer whose blocks take turns: attention within a frame, then attention along time.

    The defaults are STDiT3-XL/2, the model of Open-Sora 1.2; key names are upstream's.
    """

    type: Literal["stdit3"] = Field("stdit3", description="The model family.")
    allow_missing: tuple[str, ...] = Field(
        (),
        description='Globs of keys that the weights may lack, and that start anew: ["temporal_blocks.*", "fps_embedder.*"] '
        "for those of an image model.",
        json_schema_extra=cost("changes_numerics"),
    )
    input_sq_size: int = Field(
        512,
        ge=1,
        description="Side of a square clip, in pixels, whose position table is not stretched.",
        json_schema_extra=cost("changes_numerics"),
    )
    depth: int = Field(
        28,
        ge=1,
        description="Pairs of a spatial and a temporal block.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    qk_norm: bool = Field(
        True, description="Whether queries and keys are normalised.", json_schema_extra=cost("breaks_resume")
    )
    pred_sigma: bool = Field(
        True,
        description="Whether the model has outputs for a variance; rectified flow ignores them.",
        json_schema_extra=cost("breaks_resume"),
    )
    model_max_length: int = Field(
        300, ge=1, description="Tokens of a text, and of the null one.", json_schema_extra=cost("breaks_resume")
    )
    freeze_y_embedder: bool = Field(
        False,
        description="Whether the projection of the text is kept as it is in training.",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )

    @property
    def takes_frames(self) -> bool:
        """Whether some frames of a clip may be given."""
        return True

    @property
    def output_channels(self) -> int:
        """Channels of the answer."""
        return self.in_channels * (2 if self.pred_sigma else 1)
