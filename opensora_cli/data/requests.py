"""What the workers are asked for: a planned batch, made concrete."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from opensora_cli.data.batches import PlannedBatch
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.captions import training_caption
from opensora_cli.data.dataset import BatchRequest, ClipRequest
from opensora_cli.data.draws import Purpose, uniforms
from opensora_cli.data.frames import latest_start, map_target_fps
from opensora_cli.data.manifest import Manifest
from schemas.data import DatasetConfig


class EpochRequests(Sequence[BatchRequest]):
    """The requests of an epoch, each made when it is asked for: paths and captions of a large table are not sent around.

    Where a clip's window starts is drawn from (seed, window, row) alone; `DatasetConfig.window` gives an epoch's window.
    """

    def __init__(self, manifest: Manifest, buckets: Buckets, config: DatasetConfig, seed: int) -> None:
        self.manifest = manifest
        self.buckets = buckets
        self.config = config
        self.seed = seed
        self.served = 0
        """How often other batches were taken on."""
        self._window = 0
        self._planned: list[PlannedBatch] = []

    def take(self, planned: list[PlannedBatch], window: int) -> None:
        """Go over to other batches."""
        self._planned, self._window = planned, window
        self.served += 1

    def __len__(self) -> int:
        return len(self._planned)

    def __getitem__(self, place: Any) -> Any:
        """Return the request of the batch at `place`."""
        batch = self._planned[place]
        rows = np.array([*batch.rows, *batch.substitutes], dtype=np.int64)
        draws = uniforms(Purpose.CLIP_START, self.seed, self._window, rows)
        shape = self.buckets.shape(batch.bucket)
        clips = [self._clip(row, draw, shape.frames) for row, draw in zip(rows.tolist(), draws.tolist(), strict=True)]
        first = len(batch.rows)
        return BatchRequest(batch.bucket, shape, tuple(clips[:first]), tuple(clips[first:]))

    def _clip(self, row: int, draw: float, frames: int) -> ClipRequest:
        manifest, limit = self.manifest, self.config.fps_max
        fps = manifest.fps_of(row)
        new_fps, interval = map_target_fps(fps, limit)
        total = int(manifest.frames[row])
        start = int(draw * (latest_start(total, frames, interval) + 1))
        text = training_caption(manifest.text(row), fps, limit, manifest.motion_of(row))
        return ClipRequest(row, manifest.path(row), text, new_fps, total, interval, start)
