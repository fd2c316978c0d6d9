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
from opensora_cli.data.transforms import CropDraw
from schemas.data import DatasetConfig


class EpochRequests(Sequence[BatchRequest]):
    """The requests of an epoch, each made when it is asked for: paths and captions of a large table are not sent around.

    Where a clip's window starts and how it is cropped is drawn from (seed, epoch, row) alone.
    """

    def __init__(self, manifest: Manifest, buckets: Buckets, config: DatasetConfig, seed: int) -> None:
        self.manifest = manifest
        self.buckets = buckets
        self.config = config
        self.seed = seed
        self.served = 0
        """How often other batches were taken on."""
        self._epoch = 0
        self._planned: list[PlannedBatch] = []

    def take(self, planned: list[PlannedBatch], epoch: int) -> None:
        """Go over to other batches."""
        self._planned, self._epoch = planned, epoch
        self.served += 1

    def __len__(self) -> int:
        return len(self._planned)

    def __getitem__(self, place: Any) -> Any:
        """Return the request of the batch at `place`."""
        batch = self._planned[place]
        rows = np.array([*batch.rows, *batch.substitutes], dtype=np.int64)
        starts = uniforms(Purpose.CLIP_START, self.seed, self._epoch, rows)
        crops = (uniforms(Purpose.CROP, self.seed, self._epoch, rows, slot) for slot in range(3))
        draws = zip(rows.tolist(), starts.tolist(), *(crop.tolist() for crop in crops), strict=True)
        shape = self.buckets.shape(batch.bucket)
        clips = [self._clip(row, start, CropDraw(*crop), shape.frames) for row, start, *crop in draws]
        first = len(batch.rows)
        return BatchRequest(batch.bucket, shape, tuple(clips[:first]), tuple(clips[first:]))

    def _clip(self, row: int, draw: float, crop: CropDraw, frames: int) -> ClipRequest:
        manifest, limit = self.manifest, self.config.fps_max
        fps = manifest.fps_of(row)
        new_fps, interval = map_target_fps(fps, limit)
        total = int(manifest.frames[row])
        start = int(draw * (latest_start(total, frames, interval) + 1))
        text = training_caption(manifest.text(row), fps, limit, manifest.motion_of(row))
        return ClipRequest(row, manifest.path(row), text, new_fps, total, interval, start, crop)
