"""What the workers are asked for: a planned batch, made concrete."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from opensora_cli.data.batches import PlannedBatch
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.dataset import BatchRequest, ClipRequest
from opensora_cli.data.draws import Ints, Purpose, uniforms
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.transforms import MIDDLE, CropDraw
from schemas.data import DatasetConfig

AHEAD = 4
"""Requests that are made while training goes on: captions of a large table take a while to look up."""


class EpochRequests(Sequence[BatchRequest]):
    """The requests of an epoch, each made when it is asked for: paths and captions of a large table are not sent around.

    Where a clip's window starts and how it is cropped is drawn from (seed, window, row) alone; `DatasetConfig.window` gives an
    epoch's window.
    """

    def __init__(self, manifest: Manifest, buckets: Buckets, config: DatasetConfig, seed: int) -> None:
        self.manifest = manifest
        self.buckets = buckets
        self.config = config
        self.seed = seed
        self.served = 0
        """How often other batches were taken on."""
        self._window = 0
        self._planned: Sequence[PlannedBatch] = ()

    def take(self, planned: Sequence[PlannedBatch], window: int) -> None:
        """Go over to other batches."""
        self._planned, self._window = planned, window
        self.served += 1

    def __len__(self) -> int:
        return len(self._planned)

    def __getitem__(self, place: Any) -> Any:
        """Return the request of the batch at `place`."""
        return self._request(self._planned[place], self._window)

    def __iter__(self) -> Iterator[BatchRequest]:
        """Yield the requests in order, the next few made ahead in a thread."""
        planned, window = self._planned, self._window
        ahead: deque[Future[BatchRequest]] = deque()
        thread = ThreadPoolExecutor(1, thread_name_prefix="requests")
        try:
            for batch in planned:
                ahead.append(thread.submit(self._request, batch, window))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)

    def _request(self, batch: PlannedBatch, window: int) -> BatchRequest:
        rows = np.array([*batch.rows, *batch.substitutes], dtype=np.int64)
        starts = uniforms(Purpose.CLIP_START, self.seed, window, rows)
        draws = zip(rows.tolist(), starts.tolist(), self._crops(window, rows), strict=True)
        shape = self.buckets.shape(batch.bucket)
        clips = [self._clip(row, start, crop, shape.frames) for row, start, crop in draws]
        first = len(batch.rows)
        return BatchRequest(batch.bucket, shape, tuple(clips[:first]), tuple(clips[first:]))

    def _crops(self, window: int, rows: Ints) -> list[CropDraw]:
        """Draw crops where the transform uses them: a cache knows a clip's entry by its draws."""
        if self.config.transform_name != "rand_size_crop":
            return [MIDDLE] * len(rows)
        draws = (uniforms(Purpose.CROP, self.seed, window, rows, slot).tolist() for slot in range(3))
        return [CropDraw(*draw) for draw in zip(*draws, strict=True)]

    def _clip(self, row: int, draw: float, crop: CropDraw, frames: int) -> ClipRequest:
        manifest, limit = self.manifest, self.config.fps_max
        rules = self.buckets.rules
        fps = manifest.fps_of(row)
        total = int(manifest.frames[row])
        path, text = manifest.clip(row)
        new_fps, interval = rules.rate(path, fps, limit)
        start = int(draw * (rules.latest_start(total, frames, interval) + 1))
        text = rules.caption(text, fps, limit, manifest.motion_of(row))
        return ClipRequest(row, path, text, new_fps, total, interval, start, crop)
