"""Decoding a batch: what a worker is asked for, and what it gives back.

A request carries everything a worker needs, so that workers hold no table and their memory does not grow with it.
Legend: B batch, C channels, T frames, H W pixels.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from opensora_cli.data.buckets import BucketKey, Shape
from opensora_cli.data.frames import crop_indices
from opensora_cli.data.media import UnreadableClip, is_image
from opensora_cli.data.readers import FrameReader
from opensora_cli.data.transforms import CropDraw, TransformName, transform_image, transform_video
from opensora_cli.data.video import read_clip, read_frames

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
    `fps` frames per second after the frame-rate limit, 0 where unknown; `bad` the clips that substitutes stand in for.
    """

    video: Tensor
    text: list[str]
    rows: list[int]
    bucket: BucketKey
    fps: list[float]
    bad: list[BadClip]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its pixels on a device."""
        return replace(self, video=self.video.to(device, non_blocking=True))


@dataclass(frozen=True)
class LostBatch:
    """Comes in place of a batch that has too few readable clips: an exception would lose its words on the way."""

    reason: str


class ClipDataset(Dataset[Batch | LostBatch]):
    """Turns batch requests into batches."""

    def __init__(self, transform: TransformName, reader: FrameReader = read_frames) -> None:
        self.transform: TransformName = transform
        self.reader = reader

    def __getitem__(self, request: BatchRequest) -> Batch | LostBatch:
        """Return the batch, or LostBatch when a clip cannot be read and no substitute is left."""
        waiting = list(request.substitutes)
        videos: list[Tensor] = []
        clips: list[ClipRequest] = []
        bad: list[BadClip] = []
        for wanted in request.clips:
            clip, video_CTHW = wanted, None
            while video_CTHW is None:
                try:
                    video_CTHW = read_training_clip(clip, request.shape, self.transform, self.reader)
                except UnreadableClip as error:
                    bad.append((clip.row, clip.path, error.reason))
                    if not waiting:
                        return LostBatch(_no_substitute(request, bad))
                    clip = waiting.pop(0)
            videos.append(video_CTHW)
            clips.append(clip)
        return Batch(
            video=torch.stack(videos),
            text=[clip.text for clip in clips],
            rows=[clip.row for clip in clips],
            bucket=request.bucket,
            fps=[clip.fps for clip in clips],
            bad=bad,
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
