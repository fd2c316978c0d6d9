"""What the denoisers of Open-Sora 1.x have in common: they take latents as they are, and a caption or a class."""

from pydantic import Field

from schemas.base import Schema, cost
from schemas.text import TextPart


class LatentDenoiser(Schema):
    """A transformer over patches of latents. Key names are upstream's; defaults are those of the XL/2 models."""

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
    caption_channels: int = Field(
        4096,
        ge=1,
        description="Width of a text token; 4096 is T5 XXL's.",
        json_schema_extra=cost("breaks_resume"),
    )
    class_dropout_prob: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of captions that training replaces by the learned empty one, for classifier-free guidance.",
        json_schema_extra=cost("changes_numerics"),
    )

    @property
    def texts(self) -> tuple[TextPart, ...]:
        """What it takes of a caption."""
        return ("t5", "t5_mask")

    @property
    def takes_frames(self) -> bool:
        """Whether some frames of a clip may be given."""
        return False

    @property
    def patch_side(self) -> int:
        """Latent pixels of a token's side."""
        return self.patch_size[1]

    @property
    def guidance_embed(self) -> bool:
        """Whether the guidance scale is an input: never here."""
        return False

    @property
    def output_channels(self) -> int:
        """Channels of the answer: the latent's, twice where it predicts a variance too."""
        return 2 * self.in_channels
