"""Memory and work of an autoencoder by running its own code on the meta device, where tensors have shapes but no numbers.

What is counted is what the code allocates, so nothing here follows the blocks by hand. Workspaces inside an operation are
not seen, and autocast is stood for by a module that is in the lower precision throughout.
"""

import weakref
from collections.abc import Container
from functools import lru_cache
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opensora_cli.planning.coded import Coding, Extent, latent_size
from opensora_cli.planning.meta_kernels import MetaKernels, Work
from opensora_cli.planning.precision import STATE, Precision
from opensora_models.build import build_autoencoder
from schemas.autoencoder import AutoEncoder2DConfig, AutoencoderConfig, DCAEConfig, VAETemporalConfig

UNTILED = {
    "use_spatial_tiling": False,
    "use_temporal_tiling": False,
    "spatial_tile_size": 256,
    "temporal_tile_size": 32,
    "tile_batch": 1,
}
"""Keys of a configuration that is traced whole; sizes are the same for all, so that one trace serves them."""
SMALL = (4, 4, 4)
"""Latents of the clip that is traced for all sizes."""


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, until it is freed.

    `now`, `peak` (the most so far), and `largest` (of a single one). `known` are storages, by their address, that were there
    before: a view of one makes none.
    """

    def __init__(self, known: Container[int] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.sizes: dict[int, int] = {}
        self.now = self.peak = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.sizes and key not in self.known:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class SavedStorages:
    """Counts what autograd saves while it is on, each storage once, weights left out."""

    def __init__(self, module: nn.Module) -> None:
        self._weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        self._seen: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is saved."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._seen[storage._cdata] = storage
        return tensor

    @property
    def total(self) -> int:
        """Bytes so far."""
        return self.without(())

    def without(self, others: Container[int]) -> int:
        """Return the bytes so far that are not of `others`, storages by their address."""
        return sum(storage.nbytes() for key, storage in self._seen.items() if key not in others)


def traced_coding(
    config: DCAEConfig | AutoEncoder2DConfig,
    matrix: int,
    batch: int,
    extent: Extent,
    direction: Literal["encode", "decode"],
    *,
    trained: bool,
) -> Coding:
    """Return the cost of a batch of clips of `extent` (pixels either way), `matrix` bytes a number.

    `trained`: coders of pictures take all frames at once, else one at a time.
    """
    if isinstance(config, AutoEncoder2DConfig):
        picture = scaled(trace(config, matrix, (1, *extent[1:]), direction), batch, 1)
        more = batch * matrix * _result(config, extent, direction) if extent[0] > 1 else 0
        peak = picture.peak * extent[0] if trained else picture.peak + 2 * more
        return Coding(peak, picture.saved * extent[0], picture.flops * extent[0])
    # Its layers, the linear attention among them, cost the same for every pixel: one small trace stands for all sizes.
    time, side = config.time_compression_ratio, config.spatial_compression_ratio
    pictures = not config.stages.is_video
    small = (1 if extent[0] == 1 or pictures else SMALL[0] * time, SMALL[1] * side, SMALL[2] * side)
    traced = trace(config.model_copy(update=UNTILED), matrix, small, direction)
    pieces = [
        (frames, rows, columns)
        for frames in _tiles(extent[0], config.temporal_tile_size, config.use_temporal_tiling, config)
        for rows in _tiles(extent[1], config.spatial_tile_size, config.use_spatial_tiling, config)
        for columns in _tiles(extent[2], config.spatial_tile_size, config.use_spatial_tiling, config)
    ]
    out = batch * matrix * _result(config, extent, direction)
    largest, everything = max(map(prod, pieces)), sum(map(prod, pieces))
    cost = scaled(traced, batch * everything, prod(small))
    together = batch * (config.tile_batch if config.use_spatial_tiling and len(pieces) > 1 else 1)
    if pictures and not trained:
        largest = max(rows * columns for _, rows, columns in pieces)
    peak = traced.peak * together * largest // prod(small)
    # Coded tiles and frames wait, then they are joined.
    joined = len(pieces) > 1 or (pictures and not trained and extent[0] > 1)
    return Coding(peak + (2 * out if joined else 0), cost.saved, cost.flops)


def _tiles(size: int, tile: int, used: bool, config: DCAEConfig) -> list[int]:
    """Return the sizes of the tiles along an axis."""
    if not used or size <= tile:
        return [size]
    return [min(tile, size - start) for start in range(0, size, int(tile * (1 - config.tile_overlap_factor)))]


def _result(config: DCAEConfig | AutoEncoder2DConfig, extent: Extent, direction: Literal["encode", "decode"]) -> int:
    """Return the numbers of what comes out for a clip."""
    return 3 * prod(extent) if direction == "decode" else config.latent_channels * prod(latent_size(config, extent))


def scaled(cost: Coding, times: int, over: int = 1) -> Coding:
    """Return the cost of `times` / `over` as much."""
    return Coding(cost.peak * times // over, cost.saved * times // over, cost.flops * times // over)


def pixel_channels(config: AutoencoderConfig) -> int:
    """Return the channels of what is encoded: three, but along time those of the latents of pictures."""
    return config.in_out_channels if isinstance(config, VAETemporalConfig) else 3


@lru_cache(maxsize=64)
def trace(config: AutoencoderConfig, matrix: int, extent: Extent, direction: Literal["encode", "decode"]) -> Coding:
    """Run one clip through the autoencoder."""
    dtype = torch.float32 if matrix == STATE else torch.bfloat16
    with torch.device("meta"):
        module = build_autoencoder(config).to(dtype)
        sizes = (
            (pixel_channels(config), *extent)
            if direction == "encode"
            else (module.latent_channels, *module.latent_size(*extent))
        )
        clip_BCTHW = torch.empty(1, *sizes, dtype=dtype)
    work = module.encode if direction == "encode" else module.decode
    kernels = MetaKernels(Precision(matrix, matrix, "cuda"))
    with kernels, Work() as counted, LiveStorages() as live, torch.no_grad():
        work(clip_BCTHW)
    saved = SavedStorages(module)
    with kernels, torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        work(clip_BCTHW)
    return Coding(live.peak, saved.total, counted.flops.forward)
