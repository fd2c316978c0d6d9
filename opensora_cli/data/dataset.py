"""Decoding a batch: what a worker is asked for, and what it gives back.

A request carries everything a worker needs, so that workers hold no table and their memory does not grow with it.
Legend: B batch, C channels, T frames, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from opensora_cli.data.buckets import BucketKey, Shape
from opensora_cli.data.cache.inputs import CachedInputs, CachedLatents, NotCachedError, stack_parts
from opensora_cli.data.frames import crop_indices
from opensora_cli.data.media import UnreadableClip, is_image
from opensora_cli.data.readers import FrameReader
from opensora_cli.data.transforms import CropDraw, TransformName, transform_image, transform_video
from opensora_cli.data.video import read_clip, read_frames
from opensora_models.text.features import TextFeatures
from schemas.errors import OsoraError

BadClip = tuple[int, str, str]
"""(row, path, reason)."""


@dataclass(frozen=True)
class ClipRequest:
    """One clip: its row, its file, its finished caption, which frames to take, and the draw of a random crop."""

    row: int
    path: str
    text: str
    fps: float
    total_frames: int
    interval: int
    start: int
    crop: CropDraw


@dataclass(frozen=True)
class BatchRequest:
    """A batch to decode; `substitutes` step in, in order, for clips that cannot be read."""

    bucket: BucketKey
    shape: Shape
    clips: tuple[ClipRequest, ...]
    substitutes: tuple[ClipRequest, ...]


@dataclass(frozen=True)
class Batch:
    """What one training step of one rank sees.

    `video` is (B, 3, T, H, W) float32 in [-1, 1]; `text` the captions with their suffixes; `rows` row numbers of the table;
    `fps` frames per second after the frame-rate limit, 0 where unknown (by the rules of Open-Sora 1.2 after the interval, 24
    where unknown and 120 for pictures); `bad` the clips that substitutes stand in for.
    From a cache come `latents`, and `video` has no frames then (T = 0); and `features`, in place of encoding `text`.
    """

    video: Tensor
    text: list[str]
    rows: list[int]
    bucket: BucketKey
    fps: list[float]
    bad: list[BadClip]
    latents: CachedLatents | None = None
    features: TextFeatures | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on a device; from pinned memory the copy overlaps with other work."""
        return self.with_tensors([tensor.to(device, non_blocking=True) for tensor in self.tensors()])

    def tensors(self) -> list[Tensor]:
        """Return everything that has to travel to the device."""
        return list(self.named_tensors().values())

    def named_tensors(self) -> dict[str, Tensor]:
        """Return the same by what it is."""
        parts = {"video": self.video}
        if self.latents is not None:
            parts |= {f"latents.{part}": tensor for part, tensor in self.latents.parts.items()}
        if self.features is not None:
            parts |= {f"features.{part}": self.features[part] for part in self.features}
        return parts

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Batch":
        """Return the batch with other tensors in place of `tensors()`, in their order."""
        waiting = iter(tensors)
        return replace(
            self,
            video=next(waiting),
            latents=CachedLatents({part: next(waiting) for part in self.latents.parts}) if self.latents else None,
            features=TextFeatures({part: next(waiting) for part in self.features}) if self.features else None,
        )


@dataclass(frozen=True)
class LostBatch:
    """Comes in place of a batch that has too few readable clips: an exception would lose its words on the way."""

    reason: str


Read = TypeVar("Read")


@dataclass(frozen=True)
class Filled(Generic[Read]):
    """A batch's clips, what was read of each, and the ones that others stand in for."""

    clips: list[ClipRequest] = field(default_factory=list)
    values: list[Read] = field(default_factory=list)
    bad: list[BadClip] = field(default_factory=list)


class ClipDataset(Dataset[Batch | LostBatch]):
    """Turns batch requests into batches, of pixels or of what a cache holds."""

    def __init__(
        self, transform: TransformName, cached: CachedInputs | None = None, reader: FrameReader = read_frames
    ) -> None:
        self.transform: TransformName = transform
        self.cached = cached
        self.reader = reader

    def __getitem__(self, request: BatchRequest) -> Batch | LostBatch:
        """Return the batch, or LostBatch when a clip cannot be read, or is not cached, and nothing stands in."""
        try:
            return self._with_features(self._clips(request))
        except OsoraError as error:
            return LostBatch(str(error))

    def _clips(self, request: BatchRequest) -> Batch:
        if self.cached is not None and self.cached.latents is not None:
            try:
                return self._latents(request, self.cached)
            except NotCachedError:
                if not self.cached.encode_misses:
                    raise
        filled = fill(request, lambda clip: read_training_clip(clip, request.shape, self.transform, self.reader))
        return _batch(request, filled, torch.stack(filled.values))

    def _latents(self, request: BatchRequest, cached: CachedInputs) -> Batch:
        filled = fill(request, lambda clip: cached.clip(clip, request.shape))
        no_pixels = torch.empty(len(filled.clips), 3, 0, request.shape.height, request.shape.width)
        return replace(_batch(request, filled, no_pixels), latents=stack_parts(filled.values))

    def _with_features(self, batch: Batch) -> Batch:
        if self.cached is None or self.cached.text is None:
            return batch
        try:
            return replace(batch, features=self.cached.captions(batch.text))
        except NotCachedError:
            if not self.cached.encode_misses:
                raise
            return batch


def fill(request: BatchRequest, read: Callable[[ClipRequest], Read]) -> Filled[Read]:
    """Read every clip of a request, or in its place the next substitute that can be read.

    Raises OsoraError when there are too few; `read` says with UnreadableClip that a clip is no good.
    """
    waiting = list(request.substitutes)
    filled: Filled[Read] = Filled()
    for wanted in request.clips:
        clip = wanted
        while True:
            try:
                filled.values.append(read(clip))
                break
            except UnreadableClip as error:
                filled.bad.append((clip.row, clip.path, error.reason))
                if not waiting:
                    raise OsoraError(_no_substitute(request, filled.bad)) from error
                clip = waiting.pop(0)
        filled.clips.append(clip)
    return filled


def _batch(request: BatchRequest, filled: Filled[Read], video: Tensor) -> Batch:
    return Batch(
        video=video,
        text=[clip.text for clip in filled.clips],
        rows=[clip.row for clip in filled.clips],
        bucket=request.bucket,
        fps=[clip.fps for clip in filled.clips],
        bad=filled.bad,
    )


def read_training_clip(
    clip: ClipRequest, shape: Shape, transform: TransformName, reader: FrameReader = read_frames
) -> Tensor:
    """Return the clip's frames as (3, T, H, W) in [-1, 1], each resized as soon as it is decoded. Raises UnreadableClip."""
    size = shape.height, shape.width
    if is_image(clip.path):
        x_CHW = transform_image(read_clip(clip.path, [0])[0], transform, *size, clip.crop)
        return rearrange(x_CHW, "c h w -> c 1 h w")
    indices = crop_indices(clip.total_frames, shape.frames, clip.interval, clip.start)
    x_3THW = torch.empty(3, shape.frames, *size)
    for place, frame_HWC in enumerate(reader(clip.path, indices)):
        x_3THW[:, place] = transform_video(torch.from_numpy(frame_HWC)[None], transform, *size, clip.crop)[0]
    return x_3THW


def _no_substitute(request: BatchRequest, bad: list[BadClip]) -> str:
    names = "\n".join(f"  row {row}: {path}: {reason}" for row, path, reason in bad[:8])
    return (
        f"bucket {request.bucket}: {len(bad)} clips cannot be read and the bucket has no others to take their place:\n{names}\n"
        "`osora meta` on the table leaves unreadable files out."
    )
