"""Tiles of an autoencoder by the memory that is free: `ae.tiling = "auto"`."""

from pathlib import Path

import torch
from torch import Tensor

from opensora_cli.planning.coded import Extent
from opensora_cli.planning.coding import coding
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.tiles import candidates, with_tiles
from opensora_models.layers.tiling import Direction, TileSizes
from schemas.autoencoder import TiledConfig
from schemas.errors import OsoraError

SHARE = 0.85
"""Of the free memory: estimates are right to 15 %."""
GIB = 2**30


class FittingTiles:
    """Chooses the tiles of one autoencoder, once for each direction and size: what it chose stays for the whole job."""

    def __init__(self, config: TiledConfig, dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = dtype
        self.chosen: dict[tuple[Direction, torch.Size], TileSizes] = {}

    def __call__(self, direction: Direction, x_BCTHW: Tensor) -> TileSizes:
        """Return the tiles for a clip, or for latents to decode."""
        key = direction, x_BCTHW.shape
        if key not in self.chosen:
            free = free_memory(x_BCTHW.device)
            batch, _, *sizes = x_BCTHW.shape
            extent = clip_extent(self.config, direction, (sizes[0], sizes[1], sizes[2]))
            precision = Precision.of(
                "fp32" if self.dtype == torch.float32 else "bf16",
                "cuda" if x_BCTHW.device.type == "cuda" else "cpu",
                autocast=False,
            )
            self.chosen[key] = tiles_that_fit(self.config, precision, batch, extent, direction, free)
        return self.chosen[key]


def tiles_that_fit(
    config: TiledConfig, precision: Precision, batch: int, extent: Extent, direction: Direction, free: int
) -> TileSizes:
    """Return the largest tiles, or none, with which coding a batch fits in `free` bytes; `extent` is in pixels either way.

    Raises OsoraError where not even the smallest fit.
    """
    needed = 0
    for tiles in candidates(config, extent):
        needed = coding(with_tiles(config, tiles), precision, batch, extent, direction).peak
        if needed <= SHARE * free:
            return tiles
    frames, height, width = extent
    raise OsoraError(
        f'ae.tiling = "auto": to {direction} {batch} x {frames} frames of {height} x {width} takes {needed / GIB:.2f} GiB even '
        f"in the smallest tiles, and of {free / GIB:.2f} GiB that are free {SHARE:.0%} may be used. Free memory, or take a "
        'smaller batch, fewer frames, a smaller size or dtype = "bf16".'
    )


def clip_extent(config: TiledConfig, direction: Direction, sizes: Extent) -> Extent:
    """Return a clip's frames and sides in pixels, given its own or those of its latents."""
    if direction == "encode":
        return sizes
    time, space = config.time_compression_ratio, config.spatial_compression_ratio
    single = config.causal or sizes[0] == 1  # the first latent frame, or a picture's, is one frame
    frames = 1 + time * (sizes[0] - 1) if single else time * sizes[0]
    return frames, space * sizes[1], space * sizes[2]


def free_memory(device: torch.device) -> int:
    """Return the bytes that tensors can still have: on CUDA with what the allocator holds unused, else of this machine."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min([available, *_left_in_group(Path("/sys/fs/cgroup"))])


def _left_in_group(group: Path) -> list[int]:
    """Return what a container's limit leaves, where there is one (cgroup v2)."""
    limit, used = group / "memory.max", group / "memory.current"
    if not (limit.is_file() and used.is_file()) or limit.read_text().strip() == "max":
        return []
    return [max(0, int(limit.read_text()) - int(used.read_text()))]
