"""The two-stage video autoencoder of Open-Sora 1.2: pictures to latents, then latents along time."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.autoencoder.autoencoder_kl import AutoencoderKLConfig
from schemas.base import Schema, cost

ByChannel = float | tuple[float, ...]


class VAETemporalConfig(Schema):
    """A causal 3-D autoencoder along time: frames are shortened by a factor, sides stay. It is made for latents of pictures.

    The defaults are VAE_Temporal_SD, key names upstream's.
    """

    type: Literal["vae_temporal"] = Field("vae_temporal", description="The autoencoder family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights: a .safetensors or .pt file, a checkpoint folder, or unset for random weights.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    in_out_channels: int = Field(4, ge=1, description="Channels in and out.", json_schema_extra=cost("breaks_resume"))
    latent_embed_dim: int = Field(
        4, ge=1, description="Channels between encoder and decoder.", json_schema_extra=cost("breaks_resume")
    )
    embed_dim: int = Field(
        4, ge=1, description="Channels of a latent pixel.", json_schema_extra=cost("breaks_resume", "needs_recache")
    )
    filters: int = Field(
        128,
        ge=1,
        description="Width of the first block; channel_multipliers multiply it.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    num_res_blocks: int = Field(
        4, ge=1, description="Residual layers of every block.", json_schema_extra=cost("breaks_resume")
    )
    channel_multipliers: tuple[int, ...] = Field(
        (1, 2, 2, 4),
        min_length=1,
        description="Width of every block over filters.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    temporal_downsample: tuple[bool, ...] = Field(
        (False, True, True),
        description="Whether time is halved after each block but the last.",
        json_schema_extra=cost("breaks_resume", "needs_recache"),
    )
    num_groups: int = Field(
        32,
        ge=1,
        description="Groups of every group norm; divides each width.",
        json_schema_extra=cost("changes_numerics"),
    )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent pixel, by the name that every family shares."""
        return self.embed_dim

    @property
    def time_compression_ratio(self) -> int:
        """Frames per latent frame; the last of them may be fewer."""
        return int(2 ** sum(self.temporal_downsample))

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per side of a latent pixel."""
        return 1

    @property
    def causal(self) -> bool:
        """Whether the first frame is a latent frame of its own: only where zeros fill up the others of its latent frame."""
        return False


class OpenSoraVAEConfig(Schema):
    """Frames through an image autoencoder, then their latents through one along time, in parts of micro_frame_size frames.

    Any number of frames works: 17 become 5 latent frames. The defaults are OpenSoraVAE_V1_2, key names upstream's.
    """

    type: Literal["open_sora_vae"] = Field("open_sora_vae", description="The autoencoder family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights of both stages: a .safetensors or .pt file, a checkpoint folder; unset takes those of the stages.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    vae_2d: AutoencoderKLConfig = Field(AutoencoderKLConfig.model_construct(), description="The stage of pictures.")
    vae_temporal: VAETemporalConfig = Field(VAETemporalConfig.model_construct(), description="The stage along time.")
    freeze_vae_2d: bool = Field(
        False,
        description="Train the stage along time alone.",
        json_schema_extra=cost("breaks_resume", "changes_memory", "changes_numerics"),
    )
    micro_frame_size: Annotated[int, Field(ge=1)] | Literal["whole"] = Field(
        17,
        description="Frames that the stage along time takes at a time, each part by itself.",
        json_schema_extra=cost("changes_memory", "changes_numerics", "needs_recache"),
    )
    shift: ByChannel = Field(
        (-0.10, 0.34, 0.27, 0.98),
        description="Subtracted from raw latents, for each channel or for all; counts instead of what a file of weights has.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    scale: ByChannel = Field(
        (3.85, 2.32, 2.33, 3.06),
        description="Latents are divided by this after the shift; counts instead of what a file of weights has.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent pixel."""
        return self.vae_temporal.embed_dim

    @property
    def time_compression_ratio(self) -> int:
        """Frames per latent frame; the last of a part may be fewer."""
        return self.vae_temporal.time_compression_ratio

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per side of a latent pixel."""
        return self.vae_2d.spatial_compression_ratio

    @property
    def causal(self) -> bool:
        """Whether the first frame is a latent frame of its own: only where zeros fill up the others of its latent frame."""
        return False
