"""The deep-compression autoencoder (DC-AE)."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from opensora_models.dc_ae.blocks import HEAD
from opensora_models.dc_ae.coders import Decoder, Encoder
from opensora_models.dc_ae.weights import LIKELY_CAUSES
from opensora_models.layers.pictures import by_frame
from opensora_models.layers.tiling import (
    Coder,
    Direction,
    TileChoice,
    TileSizes,
    Tiling,
    tile_plans,
    tiled,
    whole_strides,
)
from schemas.autoencoder.dc_ae import DCAEConfig
from schemas.errors import OsoraError


class DCAE(nn.Module):
    """4k frames to k latent frames and back, a side to a 32nd; one frame is a picture. Nothing is drawn: no posterior.

    State-dict keys are those of the published checkpoints. A flavour for pictures takes clips as independent pictures.
    """

    causal = False
    likely_causes = LIKELY_CAUSES

    def __init__(self, config: DCAEConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.tile_choice: TileChoice | None = None
        self.shape = config.stages
        self.latent_channels = config.latent_channels
        space = config.spatial_compression_ratio
        self.strides = (config.time_compression_ratio, space, space)
        self.encoder = Encoder(self.shape)
        self.decoder = Decoder(self.shape)

    def forward(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        """Return the reconstruction, and None: latents have no posterior. What training needs."""
        return self.decode(self.encode(x_BCTHW, generator)), None

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latents' (t, h, w) for a clip of that many frames and pixels."""
        time, rows, columns = self.strides
        return (frames - 1) // time + 1, (height - 1) // rows + 1, (width - 1) // columns + 1

    def encode(self, x_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents of pixels in [-1, 1]; a generator changes nothing, since nothing is drawn.

        Raises OsoraError for frames or sides that are no multiples of the strides (a single frame is fine).
        """
        return self.latents(self.moments(x_BCTHW), generator)

    def moments(self, x_BCTHW: Tensor) -> Tensor:
        """Return all that `latents` needs of a clip, which is what a cache keeps: the raw latents. Errors as `encode`."""
        self._check_size(x_BCTHW)
        space, time = self._tilings("encode", x_BCTHW)
        return tiled(x_BCTHW, space, time, self._coder(self.encoder))

    def latents(self, moments_BMTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents of `moments`, as `encode` does; needs no weights."""
        return moments_BMTHW / self.config.scaling_factor

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return the pixels of scaled latents, every frame of them; values may leave [-1, 1] a little."""
        space, time = self._tilings("decode", z_BCTHW)
        raw = z_BCTHW * self.config.scaling_factor
        # A lone latent frame is decoded as a picture: one frame instead of four.
        return tiled(raw, space, time, self._coder(self.decoder), shortest=2 if self.strides[0] > 1 else 1)

    def _coder(self, module: nn.Module) -> Coder:
        return module if self.shape.is_video else partial(by_frame, module)

    def _tilings(self, direction: Direction, x_BCTHW: Tensor) -> tuple[Tiling | None, Tiling | None]:
        config = self.config
        sizes = self._tiles_as_set() if self.tile_choice is None else self.tile_choice(direction, x_BCTHW)
        return tile_plans(
            direction,
            sizes,
            ratios=(config.spatial_compression_ratio, config.time_compression_ratio),
            overlap=config.tile_overlap_factor,
            batch=config.tile_batch,
        )

    def _tiles_as_set(self) -> TileSizes:
        config = self.config
        return TileSizes(
            config.spatial_tile_size if config.use_spatial_tiling else None,
            config.temporal_tile_size if config.use_temporal_tiling else None,
        )

    def _check_size(self, x_BCTHW: Tensor) -> None:
        sizes = dict(zip(("frames", "rows", "columns"), zip(x_BCTHW.shape[2:], self.strides, strict=True), strict=True))
        for name, (size, stride) in sizes.items():
            if size % stride and not (name == "frames" and size == 1):
                near = max(size // stride * stride, stride)
                raise OsoraError(
                    f"a clip of {size} {name}: the autoencoder ({self.config.model_name}) takes multiples of {stride}"
                    f"{' or a single frame' if name == 'frames' else ''}. Use {near} or {near + stride}."
                )


def _check(config: DCAEConfig) -> None:
    """Refuse shapes that cannot be built and tilings that cannot be joined."""
    shape = config.stages
    lengths = {len(shape.width_list), len(shape.encoder_depth_list), len(shape.decoder_depth_list)}
    if len({*lengths, len(shape.block_type), len(shape.temporal_downsample)}) > 1:
        raise OsoraError("ae.shape: its lists describe one stage an entry, so all must have one length.")
    if not shape.is_video and any(shape.temporal_downsample):
        raise OsoraError(
            "ae.shape.temporal_downsample: pictures have no time. Set it to false throughout, or is_video."
        )
    for key, only in (
        ("downsample", shape.downsample == "ConvPixelUnshuffle"),
        ("upsample", shape.upsample == "ConvPixelShuffle"),
        ("decoder_batch_norm", shape.decoder_batch_norm),
    ):
        if only and shape.is_video:
            raise OsoraError(
                f"ae.shape.{key} = {getattr(shape, key)!r} is for pictures. Set ae.shape.is_video = false."
            )
    for key, depths in (("encoder", shape.encoder_depth_list), ("decoder", shape.decoder_depth_list)):
        if min(depths[1:], default=1) < 1 or depths[0] < 0 or (depths[0] == 0 and len(depths) == 1):
            raise OsoraError(
                f"ae.shape.{key}_depth_list = {list(depths)}: only the first of several stages may have 0."
            )
    for width, kind in zip(shape.width_list, shape.block_type, strict=True):
        if kind != "ResBlock" and width % HEAD:
            raise OsoraError(
                f"ae.shape.width_list: {kind} needs multiples of {HEAD}, the width of a head, not {width}."
            )
    _check_shortcuts(config)
    _check_tiles(config)


def _check_shortcuts(config: DCAEConfig) -> None:
    """Shortcuts average or repeat channels, in whole numbers."""
    shape = config.stages
    widths, latents = shape.width_list, shape.latent_channels
    if widths[-1] % latents:
        raise OsoraError(
            f"ae.shape.latent_channels = {latents} does not divide the last of ae.shape.width_list, {widths[-1]}."
        )
    for index, (wide, deep) in enumerate(pairwise(widths)):
        if 4 * wide % deep or 4 * wide < deep:
            raise OsoraError(
                f"ae.shape.width_list: stage {index} has {wide} channels, so the next has a divisor of {4 * wide}, not {deep}."
            )


def _check_tiles(config: DCAEConfig) -> None:
    """A tile's stride is a whole number of latents, or tiles of pixels and of latents would not cover the same."""
    for key, size, ratio, used in (
        ("spatial_tile_size", config.spatial_tile_size, config.spatial_compression_ratio, config.use_spatial_tiling),
        ("temporal_tile_size", config.temporal_tile_size, config.time_compression_ratio, config.use_temporal_tiling),
    ):
        if used and not whole_strides(size, ratio, config.tile_overlap_factor):
            share = 1 - config.tile_overlap_factor
            raise OsoraError(
                f"ae.{key} = {size}: with ae.tile_overlap_factor = {config.tile_overlap_factor} tiles would start every "
                f"{int(size * share)}, which must be a multiple of the {ratio} that a latent covers. Change one of the two."
            )
