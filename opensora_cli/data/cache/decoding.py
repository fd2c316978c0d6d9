"""Decoding for the cache: in worker processes, what is not there yet, with what every clip's entry will be called."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from opensora_cli.data.batches import PlannedBatch
from opensora_cli.data.buckets import Buckets, Shape
from opensora_cli.data.cache.contents import latents_id
from opensora_cli.data.cache.index import Collected
from opensora_cli.data.dataset import BadClip, BatchRequest, LostBatch, read_training_clip
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.media import UnreadableClip
from opensora_cli.data.readers import FrameReader, frame_reader
from opensora_cli.data.requests import EpochRequests
from opensora_cli.data.transforms import TransformName
from opensora_cli.data.workers import into_shared_memory, worker_options
from schemas.data import DatasetConfig
from schemas.errors import OsoraError


@dataclass(frozen=True)
class Decoded:
    """Clips of one shape that have to be encoded; those that are cached already are only counted."""

    shape: Shape
    names: list[bytes] = field(default_factory=list)
    videos: list[Tensor] = field(default_factory=list)
    bad: list[BadClip] = field(default_factory=list)
    undecodable: dict[bytes, str] = field(default_factory=dict)
    """Names of bad clips that are there, with the reason; a file that is missing has no content to name it by."""
    cached: int = 0

    def tensors(self) -> list[Tensor]:
        """Return what travels from the worker."""
        return self.videos


class UncachedClips(Dataset[Decoded]):
    """Decodes what `done` lacks."""

    def __init__(self, transform: TransformName, done: Collected, reader: FrameReader) -> None:
        self.transform: TransformName = transform
        self.reader = reader
        self.done = done

    def __getitem__(self, request: BatchRequest) -> Decoded:
        """Return the request's clips; one that cannot be read is `bad`, and nothing stands in for it."""
        decoded = Decoded(request.shape)
        cached = 0
        for clip in request.clips:
            name: bytes | None = None
            try:
                name = latents_id(clip, request.shape)
                if name in self.done:
                    cached += 1
                    continue
                decoded.videos.append(read_training_clip(clip, request.shape, self.transform, self.reader))
                decoded.names.append(name)
            except UnreadableClip as error:
                decoded.bad.append((clip.row, clip.path, error.reason))
                if name is not None:
                    decoded.undecodable[name] = error.reason
        return replace(decoded, cached=cached)


def plan_window(
    manifest: Manifest, buckets: Buckets, dataset: DatasetConfig, seed: int, window: int
) -> list[PlannedBatch]:
    """Return every clip that a window's draws put into a bucket, in groups of the bucket's batch size, rows in order.

    Training encodes in batches of that size: kernels may differ in the last bits between sizes.
    """
    columns = manifest.frames, manifest.heights, manifest.widths, manifest.fps
    assigned = buckets.assign(*columns, dataset.fps_max, seed=seed, epoch=window).bucket
    planned = []
    for number in np.unique(assigned[assigned >= 0]).tolist():
        key = buckets.keys[number]
        rows = np.flatnonzero(assigned == number).tolist()
        size = buckets.shape(key).batch_size
        planned += [PlannedBatch(key, tuple(rows[first : first + size]), ()) for first in range(0, len(rows), size)]
    return planned


class Decoder:
    """The worker processes of one rank."""

    def __init__(
        self, manifest: Manifest, buckets: Buckets, dataset: DatasetConfig, seed: int, done: Collected
    ) -> None:
        self._requests = EpochRequests(manifest, buckets, dataset, seed)
        self._workers = DataLoader(
            UncachedClips(
                buckets.rules.transform(dataset.transform_name),
                done,
                frame_reader(dataset.reader, dataset.decode_threads),
            ),
            batch_size=None,
            sampler=self._requests,
            collate_fn=into_shared_memory,
            generator=torch.Generator().manual_seed(seed),
            **worker_options(dataset),
        )

    def window(self, planned: list[PlannedBatch], window: int) -> Iterator[Decoded]:
        """Yield the decoded clips of each planned group. Raises OsoraError where a worker gets no memory for one."""
        self._requests.take(planned, window)
        for decoded in self._workers:
            if isinstance(decoded, LostBatch):
                raise OsoraError(decoded.reason)
            yield decoded
