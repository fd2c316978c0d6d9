"""The STDiT2 denoiser of Open-Sora 1.1."""

from typing import Literal

from pydantic import Field

from schemas.base import cost
from schemas.denoiser.latent import LatentDenoiser


class STDiT2Config(LatentDenoiser):
    """A transformer whose blocks attend within a frame, then along time; size, length and frame rate are conditions.

    The defaults are STDiT2-XL/2, the model of Open-Sora 1.1; key names are upstream's.
    """

    type: Literal["stdit2"] = Field("stdit2", description="The model family.")
    allow_missing: tuple[str, ...] = Field(
        (),
        description='Globs of keys that the weights may lack, and that start anew: ["*_temp*", "[acf]*_embedder.*"] for those '
        "of an image model.",
        json_schema_extra=cost("changes_numerics"),
    )
    input_sq_size: int = Field(
        512,
        ge=1,
        description="Side of a square clip, in pixels, whose position table is not stretched.",
        json_schema_extra=cost("changes_numerics"),
    )
    qk_norm: bool = Field(
        True, description="Whether queries and keys are normalised.", json_schema_extra=cost("breaks_resume")
    )
    qk_norm_legacy: bool = Field(
        False,
        description="Whether queries and keys are normalised after the rotation along time, as in the published weights of "
        "v1.1, instead of before.",
        json_schema_extra=cost("changes_numerics"),
    )
    pred_sigma: bool = Field(
        True,
        description="Whether the model has outputs for a variance.",
        json_schema_extra=cost("breaks_resume"),
    )
    model_max_length: int = Field(
        200, ge=1, description="Tokens of a text, and of the null one.", json_schema_extra=cost("breaks_resume")
    )

    @property
    def takes_frames(self) -> bool:
        """Whether some frames of a clip may be given."""
        return True

    @property
    def output_channels(self) -> int:
        """Channels of the answer: the latent's, twice where it predicts a variance too."""
        return self.in_channels * (2 if self.pred_sigma else 1)
