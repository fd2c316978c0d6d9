"""Encoding for the cache, in the batches and the precision of training.

Legend: B batch, C channels, M moments, T frames, H W pixels.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from opensora_cli.data.cache.decoding import Decoded
from opensora_cli.data.cache.inputs import MASK, TEXT_PARTS, WHOLE, CutPlan, Parts
from opensora_cli.data.cache.keys import part_name
from opensora_models.build import Autoencoder
from opensora_models.diffusion.condition import cut_frames

if TYPE_CHECKING:
    from opensora_models.text.encoders import TextEncoders

STORED = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@torch.no_grad()
def encode_clips(
    autoencoder: Autoencoder, decoded: Decoded, cut_plan: CutPlan, stored: torch.dtype
) -> Iterator[tuple[bytes, Parts]]:
    """Yield (name, entry) of clips of one shape; `stored` is the precision on disk.

    The batch is filled up to the bucket's size with copies of the last clip: kernels may differ in the last bits
    between batch sizes, and training has full batches.
    """
    if not decoded.videos:
        return
    weight = next(autoencoder.parameters())
    missing = decoded.shape.batch_size - len(decoded.videos)
    video_BCTHW = torch.stack([*decoded.videos, *decoded.videos[-1:] * missing]).to(weight)
    parts = {WHOLE: autoencoder.moments(video_BCTHW)}
    for frames, head in cut_plan.cuts(decoded.shape.frames):
        cut_BCTHW = torch.stack([cut_frames(clip, frames, head=head) for clip in video_BCTHW])
        parts[part_name(frames, head=head)] = autoencoder.moments(cut_BCTHW)
    on_host = {part: moments.to("cpu", stored) for part, moments in parts.items()}
    for item, name in enumerate(decoded.names):
        yield name, {part: moments[item] for part, moments in on_host.items()}


@torch.no_grad()
def encode_captions(encoders: "TextEncoders", captions: Sequence[str], stored: torch.dtype) -> list[Parts]:
    """Return the entries of captions; where T5 masks padding, with the mask."""
    t5, mask = encoders.t5.encode(captions)
    parts = {
        part: tensor.to("cpu", stored) for part, tensor in zip(TEXT_PARTS, (t5, encoders.clip(captions)), strict=True)
    }
    if encoders.t5.masked:
        parts[MASK] = mask.cpu()
    return [{part: tensor[item] for part, tensor in parts.items()} for item in range(len(captions))]
