"""The DiT denoiser (Peebles and Xie 2023) of Open-Sora 1.x: one attention over all tokens of a clip."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class DiTConfig(Schema):
    """A transformer whose blocks attend over all frames at once, modulated by time and a label or a pooled text.

    The defaults are DiT-XL/2; key names are upstream's.
    """

    type: Literal["dit"] = Field("dit", description="The model family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights to start from: a .safetensors or .pt file, a checkpoint folder, or unset for random weights.",
        json_schema_extra=cost("changes_numerics"),
    )
    allow_missing: tuple[str, ...] = Field(
        (),
        description="Globs of keys that the weights may lack, and that start anew.",
        json_schema_extra=cost("changes_numerics"),
    )
    in_channels: int = Field(4, ge=1, description="Latent channels.", json_schema_extra=cost("breaks_resume"))
    patch_size: tuple[int, int, int] = Field(
        (1, 2, 2),
        description="Latent frames, rows and columns of a token.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    hidden_size: int = Field(
        1152,
        ge=1,
        description="Width of the residual stream.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    depth: int = Field(28, ge=1, description="Blocks.", json_schema_extra=cost("breaks_resume", "changes_memory"))
    num_heads: int = Field(
        16,
        ge=1,
        description="Attention heads; the head width is hidden_size / num_heads.",
        json_schema_extra=cost("breaks_resume"),
    )
    mlp_ratio: float = Field(
        4.0,
        gt=0,
        description="Width of the MLP over hidden_size.",
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
    no_temporal_pos_emb: bool = Field(
        False,
        description="Whether tokens are told their place within a frame alone, as fits single pictures.",
        json_schema_extra=cost("changes_numerics"),
    )
