"""The DiT denoiser (Peebles and Xie 2023) of Open-Sora 1.x: one attention over all tokens of a clip."""

from typing import Literal

from pydantic import Field

from schemas.base import cost
from schemas.denoiser.latent import LatentDenoiser
from schemas.text import TextPart


class DiTConfig(LatentDenoiser):
    """A transformer whose blocks attend over all frames at once, modulated by time and a label or a pooled text.

    The defaults are DiT-XL/2; key names are upstream's.
    """

    type: Literal["dit"] = Field("dit", description="The model family.")
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
    no_temporal_pos_emb: bool = Field(
        False,
        description="Whether tokens are told their place within a frame alone, as fits single pictures.",
        json_schema_extra=cost("changes_numerics"),
    )

    @property
    def texts(self) -> tuple[TextPart, ...]:
        """What it takes of a caption."""
        return ("clip",) if self.condition == "text" else ("labels",)

    @property
    def output_channels(self) -> int:
        """Channels of the answer."""
        return self.in_channels * (2 if self.learn_sigma else 1)
