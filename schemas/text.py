"""Text encoders: T5 for the tokens, CLIP for the pooled vector."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Schema, cost

TextPart = Literal["t5", "t5_mask", "clip", "labels"]
"""What a denoiser may take of a caption: T5's tokens, which of them are the caption's own, CLIP's vector, a class."""


class TextEncoderConfig(Schema):
    """A Hugging Face text encoder, from a local folder or the local hub cache; never downloaded unasked."""

    from_pretrained: str = Field(
        description="A local folder in Hugging Face format, or the name of a model in the local hub cache.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    max_length: int = Field(
        ge=1,
        description="Tokens a caption is cut or padded to.",
        json_schema_extra=cost("changes_numerics", "needs_recache", "changes_memory"),
    )
    cleaning: Literal["none", "lower", "clean"] = Field(
        "none",
        description=(
            "What is done to a caption first: lower makes it small letters without spaces around it; clean, as Open-Sora 1.x, "
            "takes out markup, links, file names, numbers and the like as well."
        ),
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    masked: bool = Field(
        False,
        description=(
            "Tokens do not attend to padding, and denoisers that take a mask are told which tokens are padding: as Open-Sora "
            "1.x."
        ),
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    shardformer: bool = Field(
        False,
        description='With parallel.engine = "colossalai": run T5 with the layers of ShardFormer\'s policy.',
        json_schema_extra=cost("changes_memory"),
    )

    def changes(self) -> dict[str, Any]:
        """Return what changes the features and is not as in Open-Sora 2.0: caches that are older know nothing of it."""
        usual = {"cleaning": "none", "masked": False}
        return {key: getattr(self, key) for key, value in usual.items() if getattr(self, key) != value}


class TextConfig(Schema):
    """The two text encoders of Flux and Open-Sora 2.0."""

    t5: TextEncoderConfig = Field(
        TextEncoderConfig.model_construct(from_pretrained="google/t5-v1_1-xxl", max_length=512, shardformer=True),
        description="The encoder whose tokens the denoiser attends to.",
    )
    clip: TextEncoderConfig = Field(
        TextEncoderConfig.model_construct(from_pretrained="openai/clip-vit-large-patch14", max_length=77),
        description="The encoder whose pooled vector modulates the denoiser.",
    )


class DropoutRatio(Schema):
    """How often a caption is replaced by the empty one, for classifier-free guidance. The two draws are independent."""

    t5: float = Field(
        0.0, ge=0, le=1, description="Probability for the T5 tokens.", json_schema_extra=cost("changes_numerics")
    )
    clip: float = Field(
        0.0, ge=0, le=1, description="Probability for the CLIP vector.", json_schema_extra=cost("changes_numerics")
    )
