"""The MMDiT denoiser of Flux and Open-Sora 2.0."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost
from schemas.text import TextPart


class MMDiTConfig(Schema):
    """A transformer with double-stream blocks (text and image apart), then single-stream blocks (joined).

    The defaults are the 11B model of Open-Sora 2.0; key names are upstream's.
    """

    type: Literal["mmdit"] = Field("mmdit", description="The model family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights to start from: a .safetensors or .pt file, a checkpoint folder, or unset for random weights.",
        json_schema_extra=cost("changes_numerics"),
    )
    allow_missing: tuple[str, ...] = Field(
        (),
        description="Globs of keys that the weights may lack, and that start anew: cond_in.* adds the visual condition to "
        "weights without it.",
        json_schema_extra=cost("changes_numerics"),
    )
    in_channels: int = Field(
        64,
        ge=1,
        description="Features of an image token: latent channels x patch_size^2.",
        json_schema_extra=cost("breaks_resume"),
    )
    vec_in_dim: int = Field(
        768,
        ge=1,
        description="Width of the pooled text vector (CLIP's projection).",
        json_schema_extra=cost("breaks_resume"),
    )
    context_in_dim: int = Field(
        4096, ge=1, description="Width of a text token (T5's model width).", json_schema_extra=cost("breaks_resume")
    )
    hidden_size: int = Field(
        3072,
        ge=1,
        description="Width of the residual stream.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    mlp_ratio: float = Field(
        4.0,
        gt=0,
        description="Width of the MLP over hidden_size.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    num_heads: int = Field(
        24,
        ge=1,
        description="Attention heads; the head width is hidden_size / num_heads.",
        json_schema_extra=cost("breaks_resume"),
    )
    depth: int = Field(
        19, ge=0, description="Double-stream blocks.", json_schema_extra=cost("breaks_resume", "changes_memory")
    )
    depth_single_blocks: int = Field(
        38, ge=0, description="Single-stream blocks.", json_schema_extra=cost("breaks_resume", "changes_memory")
    )
    axes_dim: tuple[int, int, int] = Field(
        (16, 56, 56),
        description="Rotary features of a head for time, height and width; they add up to the head width.",
        json_schema_extra=cost("changes_numerics"),
    )
    theta: int = Field(
        10_000, ge=1, description="Base of the rotary frequencies.", json_schema_extra=cost("changes_numerics")
    )
    qkv_bias: bool = Field(
        True,
        description="Whether the double blocks' q, k and v projections have a bias.",
        json_schema_extra=cost("breaks_resume"),
    )
    guidance_embed: bool = Field(
        False,
        description="Whether the guidance scale is an input of the model (distilled guidance, flux1-dev).",
        json_schema_extra=cost("breaks_resume"),
    )
    cond_embed: bool = Field(
        False,
        description="Whether the model takes a visual condition (image or video to video).",
        json_schema_extra=cost("breaks_resume"),
    )
    fused_qkv: bool = Field(
        True,
        description="Whether q, k and v are one projection (Flux) or three (Open-Sora 2.0).",
        json_schema_extra=cost("breaks_resume"),
    )
    use_liger_rope: bool = Field(
        False,
        description="Rotary layout: true pairs feature i with i + half a head (Open-Sora 2.0), false pairs neighbours (Flux).",
        json_schema_extra=cost("changes_numerics"),
    )
    patch_size: int = Field(
        2,
        ge=1,
        description="Latent pixels per side of a token.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )

    @property
    def patch_side(self) -> int:
        """Latent pixels of a token's side."""
        return self.patch_size

    @property
    def takes_frames(self) -> bool:
        """Whether some frames of a clip may be given."""
        return self.cond_embed

    @property
    def texts(self) -> tuple[TextPart, ...]:
        """What it takes of a caption."""
        return ("t5", "clip")
