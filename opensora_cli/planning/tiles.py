"""The tiles among which `ae.tiling = "auto"` chooses."""

from math import prod

from opensora_cli.planning.coded import Extent
from opensora_models.layers.tiling import TileSizes, whole_strides
from schemas.autoencoder import DCAEConfig, TiledConfig

SIDES = (2048, 1536, 1024, 768, 512, 384, 256, 192, 128)
"""Sides of a tile that are tried, pixels."""
LENGTHS = (128, 64, 32, 16)
"""Lengths of a tile that are tried, frames."""


def candidates(config: TiledConfig, extent: Extent) -> list[TileSizes]:
    """Return no tiles, then tiles from the largest to the smallest; of two equal ones the longer side first.

    Tiles start on latents. Clips are not cut in time where that saves nothing: frames that stream, or that are pictures.
    """
    frames, height, width = extent
    longest = max(height, width)
    space, time, overlap = config.spatial_compression_ratio, config.time_compression_ratio, config.tile_overlap_factor
    sides = [side for side in SIDES if side < longest and whole_strides(side, space, overlap)]
    lengths = [length for length in LENGTHS if length < frames and whole_strides(length, time, overlap)]
    if not _joins_frames(config):
        lengths = []
    found = [TileSizes(side, length) for side in (None, *sides) for length in (None, *lengths)]

    def volume(tiles: TileSizes) -> int:
        side, length = tiles.side or longest, tiles.frames or frames
        return prod((min(side, height), min(side, width), length))

    return sorted(found, key=volume, reverse=True)  # a stable sort: sides come first, from the longest


def _joins_frames(config: TiledConfig) -> bool:
    """Whether the memory of coding grows with the frames."""
    return config.stages.is_video if isinstance(config, DCAEConfig) else config.stream_frames == "whole"


def with_tiles(config: TiledConfig, tiles: TileSizes) -> TiledConfig:
    """Return the configuration that sets these tiles by its own keys."""
    used = {"use_spatial_tiling": tiles.side is not None, "use_temporal_tiling": tiles.frames is not None}
    names = (
        ("spatial_tile_size", "temporal_tile_size")
        if isinstance(config, DCAEConfig)
        else ("sample_size", "sample_tsize")
    )
    sizes = {name: size for name, size in zip(names, (tiles.side, tiles.frames), strict=True) if size is not None}
    return config.model_copy(update={"tiling": "set", **used, **sizes})
