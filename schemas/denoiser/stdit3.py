"""The STDiT3 denoiser of Open-Sora 1.2."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class STDiT3Config(Schema):
    """A transformer whose blocks take turns: attention within a frame, then attention along time.

    The defaults are STDiT3-XL/2, the model of Open-Sora 1.2; key names are upstream's.
    """

    type: Literal["stdit3"] = Field("stdit3", description="The model family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights to start from: a .safetensors, .pt or .pth file, a checkpoint folder, or unset for random "
        "weights.",
        json_schema_extra=cost("changes_numerics"),
    )
    allow_missing: tuple[str, ...] = Field(
        (),
        description='Globs of keys that the weights may lack, and that start anew: ["temporal_blocks.*", "fps_embedder.*"] '
        "for those of an image model.",
        json_schema_extra=cost("changes_numerics"),
    )
    in_channels: int = Field(4, ge=1, description="Channels of a latent.", json_schema_extra=cost("breaks_resume"))
    patch_size: tuple[int, int, int] = Field(
        (1, 2, 2),
        description="Latent frames, rows and columns of a token.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    input_sq_size: int = Field(
        512,
        ge=1,
        description="Side of a square clip, in pixels, whose position table is not stretched.",
        json_schema_extra=cost("changes_numerics"),
    )
    hidden_size: int = Field(
        1152,
        ge=1,
        description="Width of the residual stream.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    depth: int = Field(
        28,
        ge=0,
        description="Pairs of a spatial and a temporal block.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
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
    qk_norm: bool = Field(
        True, description="Whether queries and keys are normalised.", json_schema_extra=cost("breaks_resume")
    )
    pred_sigma: bool = Field(
        True,
        description="Whether the model has outputs for a variance; rectified flow ignores them.",
        json_schema_extra=cost("breaks_resume"),
    )
    caption_channels: int = Field(
        4096, ge=1, description="Width of a text token (T5's model width).", json_schema_extra=cost("breaks_resume")
    )
    model_max_length: int = Field(
        300, ge=1, description="Tokens of a text, and of the null one.", json_schema_extra=cost("breaks_resume")
    )
    class_dropout_prob: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the training clips whose text is replaced by the null one (0 to 1), for classifier-free guidance.",
        json_schema_extra=cost("changes_numerics"),
    )
    freeze_y_embedder: bool = Field(
        False,
        description="Whether the projection of the text is kept as it is in training.",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )
