"""Stable Diffusion's image autoencoder, frame by frame on clips, and Stable Video Diffusion's, whose decoder joins frames."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost


class FramesEncodedConfig(Schema):
    """What both have: frames are encoded one by one to a mean and a log variance. Key names are diffusers'."""

    from_pretrained: str | None = Field(
        None,
        description="Weights: a .safetensors or .pt file, a checkpoint folder, or unset for random weights. Files of diffusers, "
        "old ones too, and of Open-Sora are read; of a folder in diffusers' format also its subfolder vae.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    in_channels: int = Field(3, ge=1, description="Colour channels in.", json_schema_extra=cost("breaks_resume"))
    out_channels: int = Field(3, ge=1, description="Colour channels out.", json_schema_extra=cost("breaks_resume"))
    latent_channels: int = Field(
        4, ge=1, description="Channels of a latent pixel.", json_schema_extra=cost("breaks_resume", "needs_recache")
    )
    block_out_channels: tuple[int, ...] = Field(
        (128, 256, 512, 512),
        min_length=1,
        description="Width of each resolution; all but the last halve both sides.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    layers_per_block: int = Field(
        2,
        ge=1,
        description="Residual layers of an encoder block; decoder blocks have one more.",
        json_schema_extra=cost("breaks_resume"),
    )
    scale_factor: float = Field(
        0.18215,
        gt=0,
        description="Latents are multiplied by this after the shift. Open-Sora takes SD's also for the SDXL weights.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    shift_factor: float = Field(
        0.0, description="Subtracted from raw latents.", json_schema_extra=cost("changes_numerics", "needs_recache")
    )

    @property
    def time_compression_ratio(self) -> int:
        """Frames per latent frame: an image stays an image."""
        return 1

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per side of a latent pixel."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def causal(self) -> bool:
        """Whether the first frame is a latent frame of its own."""
        return False


class AutoencoderKLConfig(FramesEncodedConfig):
    """A 2-D convolutional autoencoder; frames are independent images. The defaults are Stable Diffusion's and SDXL's shape."""

    type: Literal["autoencoder_kl"] = Field("autoencoder_kl", description="The autoencoder family.")
    norm_num_groups: int = Field(
        32,
        ge=1,
        description="Groups of every group norm; divides each width.",
        json_schema_extra=cost("changes_numerics"),
    )
    micro_batch_size: int = Field(
        4,
        ge=1,
        description="Frames coded at a time, over all clips of a batch: memory does not grow with more.",
        json_schema_extra=cost("changes_memory"),
    )


class AutoencoderKLTemporalDecoderConfig(FramesEncodedConfig):
    """Stable Diffusion's encoder and a decoder whose residual blocks also look at neighbouring frames; norms have 32 groups."""

    type: Literal["autoencoder_kl_temporal_decoder"] = Field(
        "autoencoder_kl_temporal_decoder", description="The autoencoder family."
    )
    micro_batch_size: int = Field(
        4,
        ge=1,
        description="Frames encoded at a time, over all clips of a batch; a clip is decoded as a whole.",
        json_schema_extra=cost("changes_memory"),
    )

    @property
    def norm_num_groups(self) -> int:
        """Groups of every group norm, which divide each width."""
        return 32
