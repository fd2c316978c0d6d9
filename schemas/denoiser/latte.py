"""The Latte denoiser (Ma et al. 2024, variant 1) of Open-Sora 1.x: attention within frames and across them in turn."""

from typing import Literal

from pydantic import Field

from schemas.base import cost
from schemas.denoiser.latent import LatentDenoiser
from schemas.text import TextPart


class LatteConfig(LatentDenoiser):
    """A transformer whose even blocks attend within a frame and whose odd blocks attend across frames.

    The defaults are Latte-XL/2; key names are upstream's.
    """

    type: Literal["latte"] = Field("latte", description="The model family.")
    depth: int = Field(
        28,
        ge=1,
        description="Blocks of both kinds together; the first is spatial.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    learn_sigma: bool = Field(
        True,
        description="Whether the model also predicts a variance: the output has twice the latent channels.",
        json_schema_extra=cost("breaks_resume"),
    )
    condition: str = Field(
        "text",
        pattern=r"^(text|label_[1-9][0-9]*)$",
        description="What a clip is made from: `text`, CLIP's pooled vector, or `label_N`, one of N classes.",
        json_schema_extra=cost("breaks_resume"),
    )
    caption_channels: int = Field(
        512,
        ge=1,
        description="Width of the pooled text vector; 512 is CLIP ViT-B/32's. Labels have none.",
        json_schema_extra=cost("breaks_resume"),
    )
    class_dropout_prob: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the captions or labels that training drops, for guidance. With 0 a label_N model has no row "
        "for the dropped label, and cannot be guided.",
        json_schema_extra=cost("breaks_resume"),
    )

    @property
    def texts(self) -> tuple[TextPart, ...]:
        """What it takes of a caption."""
        return ("clip",) if self.condition == "text" else ("labels",)

    @property
    def output_channels(self) -> int:
        """Channels of the answer."""
        return self.in_channels * (2 if self.learn_sigma else 1)
