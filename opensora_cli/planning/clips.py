"""How a table of clips fills the buckets: clips and batches of each, and what no bucket takes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opensora_cli.data.buckets import Buckets
from opensora_cli.data.manifest import read_manifest
from opensora_cli.data.rules import rules_of
from schemas.data import BucketTable, DatasetConfig

Length = tuple[str, int]
"""Resolution and frames: what shares a batch size."""


@dataclass(frozen=True)
class Clips:
    """The first epoch of a table: clips and full batches per (resolution, frames), aspect ratios together."""

    source: str
    rows: int
    clips: dict[Length, int]
    batches: dict[Length, int]
    empty: tuple[Length, ...]
    """Lengths that no clip of the table falls into."""
    unfilled: dict[str, tuple[int, int]]
    """Buckets with fewer clips than one batch takes: (clips, batch size)."""
    too_small: int
    too_short: int
    not_drawn: int

    def steps(self, data_parallel: int, accumulation: int) -> int:
        """Return the optimizer updates of the epoch."""
        return sum(self.batches.values()) // data_parallel // accumulation


def count_clips(path: str | Path, dataset: DatasetConfig, table: BucketTable, compression: int, seed: int) -> Clips:
    """Assign every row of a table as the first epoch does. Raises OsoraError for a table that training would refuse."""
    manifest = read_manifest(path, motion=dataset.vmaf)
    buckets = Buckets(table, compression, rules=rules_of(dataset))
    columns = manifest.frames, manifest.heights, manifest.widths, manifest.fps
    assignment = buckets.assign(*columns, dataset.fps_max, seed=seed, epoch=0)
    filled = np.bincount(assignment.bucket[assignment.bucket >= 0], minlength=len(buckets.keys)).tolist()
    clips: dict[Length, int] = {(level.resolution, frames): 0 for level in buckets.levels for frames in level.lengths}
    batches = dict(clips)
    unfilled: dict[str, tuple[int, int]] = {}
    for key, count in zip(buckets.keys, filled, strict=True):
        size = buckets.shape(key).batch_size
        clips[key.resolution, key.frames] += count
        batches[key.resolution, key.frames] += count // size
        if 0 < count < size:
            unfilled[str(key)] = count, size
    return Clips(
        str(path),
        len(manifest),
        clips,
        batches,
        tuple(length for length, count in clips.items() if not count),
        unfilled,
        assignment.too_small,
        assignment.too_short,
        assignment.not_drawn,
    )
