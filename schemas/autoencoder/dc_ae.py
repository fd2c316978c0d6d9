"""The deep-compression video autoencoder (DC-AE) of Open-Sora 2.0's high-compression model."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost

BlockType = Literal["ResBlock", "EViTS5_GLU"]
SHAPE = cost("breaks_resume", "needs_recache", "changes_memory")


class DCAEShape(Schema):
    """Stages from the widest picture to the latent; the defaults are those of dc-ae-f32t4c128.

    Each stage but the last halves both sides, so n stages shrink a side 2^(n-1) times.
    """

    latent_channels: int = Field(128, ge=1, description="Channels of a latent pixel.", json_schema_extra=SHAPE)
    width_list: tuple[int, ...] = Field(
        (128, 256, 512, 512, 1024, 1024),
        min_length=1,
        description="Width of every stage, of encoder and decoder.",
        json_schema_extra=SHAPE,
    )
    encoder_depth_list: tuple[int, ...] = Field(
        (2, 2, 2, 3, 3, 3), min_length=1, description="Blocks of every encoder stage.", json_schema_extra=SHAPE
    )
    decoder_depth_list: tuple[int, ...] = Field(
        (3, 3, 3, 3, 3, 3), min_length=1, description="Blocks of every decoder stage.", json_schema_extra=SHAPE
    )
    block_type: tuple[BlockType, ...] = Field(
        ("ResBlock", "ResBlock", "ResBlock", "EViTS5_GLU", "EViTS5_GLU", "EViTS5_GLU"),
        min_length=1,
        description="Blocks of every stage: convolutions, or linear attention with a gated convolution.",
        json_schema_extra=SHAPE,
    )
    temporal_downsample: tuple[bool, ...] = Field(
        (False, False, False, True, True, False),
        min_length=1,
        description="Whether the step out of each stage also halves the frames.",
        json_schema_extra=SHAPE,
    )


class DCAEConfig(Schema):
    """A convolutional autoencoder that is not causal: 4k frames (or one) become k latent frames, sides shrink 32 times.

    Key names are upstream's; the shape's are those of upstream's model definition, encoder and decoder in one table.
    """

    type: Literal["dc_ae"] = Field("dc_ae", description="The autoencoder family.")
    from_pretrained: str | None = Field(
        None,
        description="Weights: a .safetensors or .pt file, a checkpoint folder, or unset for random weights.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    model_name: Literal["dc-ae-f32t4c128", "custom"] = Field(
        "dc-ae-f32t4c128",
        description="The shape: that of the published model, or custom for what [ae.shape] says.",
        json_schema_extra=cost("breaks_resume", "needs_recache", "changes_memory"),
    )
    shape: DCAEShape = Field(
        DCAEShape.model_construct(), description='Stages, widths and depths of model_name = "custom".'
    )
    scaling_factor: float = Field(
        1.0,
        gt=0,
        description="Raw latents are divided by this, and multiplied again before decoding.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    use_spatial_tiling: bool = Field(
        False,
        description="Work on overlapping tiles when a side is larger than spatial_tile_size.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    use_temporal_tiling: bool = Field(
        False,
        description="Work on overlapping tiles when the clip is longer than temporal_tile_size.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    spatial_tile_size: int = Field(
        256,
        ge=1,
        description="Side of a spatial tile, pixels.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    temporal_tile_size: int = Field(
        32,
        ge=1,
        description="Length of a temporal tile, frames.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
    tile_overlap_factor: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Share of a tile that overlaps its neighbour.",
        json_schema_extra=cost("changes_numerics"),
    )

    @property
    def stages(self) -> DCAEShape:
        """The shape that `model_name` asks for."""
        return self.shape if self.model_name == "custom" else DCAEShape()

    @property
    def latent_channels(self) -> int:
        """Channels of a latent pixel."""
        return self.stages.latent_channels

    @property
    def time_compression_ratio(self) -> int:
        """Frames per latent frame."""
        return int(2 ** sum(self.stages.temporal_downsample))

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per side of a latent pixel."""
        return int(2 ** (len(self.stages.width_list) - 1))

    @property
    def causal(self) -> bool:
        """Whether the first frame is a latent frame of its own."""
        return False
