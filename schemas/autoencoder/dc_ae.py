"""The deep-compression autoencoder (DC-AE): the video flavour of Open-Sora 2.0, and the published ones for pictures."""

from typing import Literal, assert_never

from pydantic import Field

from schemas.base import Schema, cost

BlockType = Literal["ResBlock", "EViT_GLU", "EViTS5_GLU"]
ModelName = Literal[
    "dc-ae-f32t4c128",
    "dc-ae-f32c32-sana-1.0",
    "dc-ae-f32c32-in-1.0",
    "dc-ae-f32c32-mix-1.0",
    "dc-ae-f64c128-in-1.0",
    "dc-ae-f64c128-mix-1.0",
    "dc-ae-f128c512-in-1.0",
    "dc-ae-f128c512-mix-1.0",
    "custom",
]
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
        (2, 2, 2, 3, 3, 3),
        min_length=1,
        description="Blocks of every encoder stage; the first may have 0.",
        json_schema_extra=SHAPE,
    )
    decoder_depth_list: tuple[int, ...] = Field(
        (3, 3, 3, 3, 3, 3),
        min_length=1,
        description="Blocks of every decoder stage; the first may have 0.",
        json_schema_extra=SHAPE,
    )
    block_type: tuple[BlockType, ...] = Field(
        ("ResBlock", "ResBlock", "ResBlock", "EViTS5_GLU", "EViTS5_GLU", "EViTS5_GLU"),
        min_length=1,
        description="Blocks of every stage: convolutions, or linear attention (S5: also over a wider view) with a gated one.",
        json_schema_extra=SHAPE,
    )
    temporal_downsample: tuple[bool, ...] = Field(
        (False, False, False, True, True, False),
        min_length=1,
        description="Whether the step out of each stage also halves the frames.",
        json_schema_extra=SHAPE,
    )

    is_video: bool = Field(
        True,
        description="Convolutions over time too; otherwise frames are independent pictures.",
        json_schema_extra=SHAPE,
    )
    downsample: Literal["Conv", "ConvPixelUnshuffle"] = Field(
        "Conv",
        description="How a step halves: a strided convolution, or (pictures only) pixels moved into channels.",
        json_schema_extra=SHAPE,
    )
    upsample: Literal["InterpolateConv", "ConvPixelShuffle"] = Field(
        "InterpolateConv",
        description="How a step doubles: enlarging, or (pictures only) channels moved into pixels.",
        json_schema_extra=SHAPE,
    )
    decoder_batch_norm: bool = Field(
        False,
        description="Batch norm and ReLU in the decoder's ResBlocks, instead of RMS norm and SiLU (pictures only).",
        json_schema_extra=SHAPE,
    )

    @property
    def dims(self) -> int:
        """Axes that convolutions run over: time, height and width, or the last two."""
        return 3 if self.is_video else 2


def _picture_shape(latent_channels: int, compression: int) -> DCAEShape:
    """Return the shape of an image autoencoder of the first series (Chen et al. 2024, DC-AE)."""
    deep = {32: (1024, 1024), 64: (1024, 1024, 2048), 128: (1024, 1024, 2048, 2048)}[compression]
    attending = 1 + len(deep)
    kinds: list[BlockType] = ["ResBlock"] * 3
    kinds += ["EViT_GLU"] * attending
    return DCAEShape(
        latent_channels=latent_channels,
        width_list=(128, 256, 512, 512, *deep),
        encoder_depth_list=(0, 4, 8, *(2,) * attending),
        decoder_depth_list=(0, 5, 10, *(2,) * attending),
        block_type=tuple(kinds),
        temporal_downsample=(False,) * len(kinds),
        is_video=False,
        downsample="ConvPixelUnshuffle",
        upsample="ConvPixelShuffle",
        decoder_batch_norm=True,
    )


def named_shape(name: ModelName) -> DCAEShape:
    """Return a published shape; "custom" has none of its own and gives the default."""
    match name:
        case "dc-ae-f32c32-sana-1.0":
            return DCAEShape(latent_channels=32, temporal_downsample=(False,) * 6, is_video=False)
        case "dc-ae-f32c32-in-1.0" | "dc-ae-f32c32-mix-1.0":
            return _picture_shape(32, 32)
        case "dc-ae-f64c128-in-1.0" | "dc-ae-f64c128-mix-1.0":
            return _picture_shape(128, 64)
        case "dc-ae-f128c512-in-1.0" | "dc-ae-f128c512-mix-1.0":
            return _picture_shape(512, 128)
        case "dc-ae-f32t4c128" | "custom":
            return DCAEShape()
        case _:
            assert_never(name)


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
    model_name: ModelName = Field(
        "dc-ae-f32t4c128",
        description="The shape: that of a published model (those without t4 take pictures), or custom for what [ae.shape] says.",
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
    tiling: Literal["set", "auto"] = Field(
        "set",
        description="Tiles as the keys below set them; or, instead of those, by the memory that is free when a job first meets "
        "a size: none where the clip fits, else the largest that do. Results then depend on the machine.",
        json_schema_extra=cost("changes_memory", "changes_numerics", "needs_recache"),
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
    tile_batch: int = Field(
        1,
        ge=1,
        description="Spatial tiles of a row that are worked on together: faster where a tile leaves the device idle.",
        json_schema_extra=cost("changes_memory"),
    )

    @property
    def stages(self) -> DCAEShape:
        """The shape that `model_name` asks for."""
        return self.shape if self.model_name == "custom" else named_shape(self.model_name)

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
