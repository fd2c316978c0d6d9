"""The image autoencoder of Flux, frame by frame on clips."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class AutoEncoder2DConfig(Schema):
    """A 2-D convolutional autoencoder; frames are independent images. The defaults are Flux's, key names upstream's."""

    type: Literal["autoencoder_2d"] = Field("autoencoder_2d", description="The autoencoder family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights: a .safetensors or .pt file, a checkpoint folder, or unset for random weights.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    in_channels: int = Field(3, ge=1, description="Colour channels in.", json_schema_extra=cost("breaks_resume"))
    out_ch: int = Field(3, ge=1, description="Colour channels out.", json_schema_extra=cost("breaks_resume"))
    ch: int = Field(
        128,
        ge=1,
        description="Width of the first stage; ch_mult multiplies it.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    ch_mult: tuple[int, ...] = Field(
        (1, 2, 4, 4),
        min_length=1,
        description="Width of every stage over ch; each stage but the last halves both sides.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    num_res_blocks: int = Field(
        2,
        ge=1,
        description="Residual blocks of an encoder stage; decoder stages have one more.",
        json_schema_extra=cost("breaks_resume"),
    )
    z_channels: int = Field(
        16, ge=1, description="Channels of a latent pixel.", json_schema_extra=cost("breaks_resume", "needs_recache")
    )
    scale_factor: float = Field(
        0.3611,
        gt=0,
        description="Latents are multiplied by this after the shift.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    shift_factor: float = Field(
        0.1159, description="Subtracted from raw latents.", json_schema_extra=cost("changes_numerics", "needs_recache")
    )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent pixel, by the name that every family shares."""
        return self.z_channels

    @property
    def time_compression_ratio(self) -> int:
        """Frames per latent frame: an image stays an image."""
        return 1

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per side of a latent pixel."""
        return int(2 ** (len(self.ch_mult) - 1))

    @property
    def causal(self) -> bool:
        """Whether the first frame is a latent frame of its own."""
        return False
