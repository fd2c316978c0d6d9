"""The causal video autoencoder of HunyuanVideo."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Schema, cost


class HunyuanVAEConfig(Schema):
    """A causal 3-D convolutional autoencoder: 4k+1 frames become k+1 latent frames, each side shrinks 8 times.

    The defaults are the published weights' shape; key names are upstream's.
    """

    type: Literal["hunyuan_vae"] = Field("hunyuan_vae", description="The autoencoder family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights: a .safetensors or .pt file, a checkpoint folder, or unset for random weights.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    in_channels: int = Field(3, ge=1, description="Colour channels in.", json_schema_extra=cost("breaks_resume"))
    out_channels: int = Field(3, ge=1, description="Colour channels out.", json_schema_extra=cost("breaks_resume"))
    latent_channels: int = Field(
        16, ge=1, description="Channels of a latent pixel.", json_schema_extra=cost("breaks_resume", "needs_recache")
    )
    layers_per_block: int = Field(
        2,
        ge=1,
        description="Residual layers of an encoder block; decoder blocks have one more.",
        json_schema_extra=cost("breaks_resume"),
    )
    block_out_channels: tuple[int, int, int, int] = Field(
        (128, 256, 512, 512),
        description="Width of each of the four resolutions.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    norm_num_groups: int = Field(
        32,
        ge=1,
        description="Groups of every group norm; divides each width.",
        json_schema_extra=cost("changes_numerics"),
    )
    scale_factor: float = Field(
        0.476986,
        gt=0,
        description="Latents are multiplied by this after the shift.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    shift_factor: float = Field(
        0.0, description="Subtracted from raw latents.", json_schema_extra=cost("changes_numerics", "needs_recache")
    )
    time_compression_ratio: Literal[4, 8] = Field(
        4,
        description="Frames per latent frame, after the first.",
        json_schema_extra=cost("breaks_resume", "needs_recache"),
    )
    spatial_compression_ratio: Literal[8] = Field(
        8, description="Pixels per side of a latent pixel.", json_schema_extra=cost("breaks_resume", "needs_recache")
    )
    mid_block_add_attention: bool = Field(
        True,
        description="Whether the middle block attends over pixels, frame-causally.",
        json_schema_extra=cost("breaks_resume"),
    )
    tiling: Literal["set", "auto"] = Field(
        "set",
        description="Tiles as the keys below set them; or, instead of those, by the memory that is free when a job first meets "
        "a size: none where the clip fits, else the largest that do. Results then depend on the machine.",
        json_schema_extra=cost("changes_memory", "changes_numerics", "needs_recache"),
    )
    sample_size: int = Field(
        256,
        ge=8,
        description="Side of a spatial tile, pixels.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    sample_tsize: int = Field(
        64,
        ge=4,
        description="Length of a temporal tile, frames.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    use_spatial_tiling: bool = Field(
        False,
        description="Work on overlapping tiles when a side is larger than sample_size.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    use_temporal_tiling: bool = Field(
        False,
        description="Work on overlapping tiles when the clip is longer than sample_tsize.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    tile_overlap_factor: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Share of a tile that overlaps its neighbour.",
        json_schema_extra=cost("changes_numerics"),
    )
    stream_frames: Annotated[int, Field(ge=4)] | Literal["whole"] = Field(
        "whole",
        description="Frames coded at a time where nothing is trained: group norms then use the frames so far instead of all, and "
        "memory does not grow with the clip.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    tile_batch: int = Field(
        1,
        ge=1,
        description="Spatial tiles of a row that are worked on together: faster where a tile leaves the device idle.",
        json_schema_extra=cost("changes_memory"),
    )

    @property
    def causal(self) -> bool:
        """Whether the first frame is a latent frame of its own."""
        return True
