"""Visual conditions: which latent frames the denoiser is given, and their latents.

A condition is a mask (1 where a frame is given) and the given frames' latents, concatenated over channels:
(B, 1 + C, T, H, W). References are encoded on their own, so that nothing of the frames to be made leaks into them.
Legend: B batch, C latent channels, T latent frames, H W latent pixels.
"""

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from schemas.condition import ConditionName

VIDEO_FRAMES: dict[ConditionName, int] = {
    "v2v_head": 32,
    "v2v_tail": 32,
    "v2v_head_easy": 64,
    "v2v_tail_easy": 64,
}
"""Frames a video condition gives; a causal autoencoder, whose first latent is a frame of its own, takes one more."""

References = Sequence[Sequence[Tensor] | None]
"""For each item its reference latents (C, T, H, W), or None for an item without a condition."""


def reference_frames(name: ConditionName, *, causal: bool) -> int:
    """Return how many frames (not latents) each reference of a condition needs; 0 for t2v."""
    if name in VIDEO_FRAMES:
        return VIDEO_FRAMES[name] + causal
    return 0 if name == "t2v" else 1


def reference_count(name: ConditionName) -> int:
    """Return how many references (images or clips) a condition takes."""
    return {"t2v": 0, "i2v_loop": 2}.get(name, 1)


def given_ends(name: ConditionName, latent_frames: int, *, time_stride: int, causal: bool) -> tuple[int, int]:
    """Return how many latent frames are given at the head and at the tail of a clip. An image is given none.

    Raises ValueError when the clip has fewer latent frames than the condition gives.
    """
    if latent_frames == 1 or name == "t2v":
        return 0, 0
    count = VIDEO_FRAMES[name] // time_stride + causal if name in VIDEO_FRAMES else 1
    if count > latent_frames:
        raise ValueError(f"{name} gives {count} latent frames, but the clip has only {latent_frames}")
    return (0 if "tail" in name else count, 0 if "head" in name else count)


def applicable(
    weights: Mapping[ConditionName, float], latent_frames: int, *, time_stride: int
) -> dict[ConditionName, float]:
    """Return the weights without the conditions that a clip is too short for; `weights` stays as it is."""
    return {
        name: weight
        for name, weight in weights.items()
        if name not in VIDEO_FRAMES or latent_frames > VIDEO_FRAMES[name] // time_stride
    }


def pick_conditions(
    weights: Mapping[ConditionName, float], uniform_B: Tensor, latent_frames: int, *, time_stride: int
) -> tuple[ConditionName, ...]:
    """Choose a condition for each item from uniform draws in [0, 1), in proportion to the weights that apply.

    Images have no condition: t2v. Raises ValueError when no weight is left for a clip this short.
    """
    if latent_frames == 1:
        return ("t2v",) * len(uniform_B)
    options = applicable(weights, latent_frames, time_stride=time_stride)
    bounds = list(accumulate(options.values()))
    if not bounds or bounds[-1] <= 0:
        raise ValueError(
            f"no condition is left for a clip of {latent_frames} latent frames: of {', '.join(weights) or 'none'}, "
            "every one needs a longer clip or has weight 0. Give t2v or an i2v condition a weight above 0"
        )
    names = list(options)
    last = len(names) - 1
    return tuple(names[bisect(bounds, draw * bounds[-1], 0, last)] for draw in uniform_B.tolist())


def condition_mask(names: Sequence[ConditionName], latent_frames: int, *, time_stride: int, causal: bool) -> Tensor:
    """Return the mask (B, T) float32 on the CPU: 1 where a latent frame is given."""
    mask_BT = torch.zeros(len(names), latent_frames)
    for row_T, name in zip(mask_BT, names, strict=True):
        head, tail = given_ends(name, latent_frames, time_stride=time_stride, causal=causal)
        row_T[:head] = 1
        row_T[latent_frames - tail :] = 1
    return mask_BT


def join_condition(mask_BT: Tensor, latent_BCTHW: Tensor) -> Tensor:
    """Return the condition (B, 1 + C, T, H, W): the mask over all pixels, then the latents where it is 1."""
    mask_B1T11 = rearrange(mask_BT, "b t -> b 1 t 1 1").to(latent_BCTHW)
    mask_B1THW = mask_B1T11.expand(-1, -1, -1, *latent_BCTHW.shape[-2:])
    return torch.cat([mask_B1THW, mask_B1THW * latent_BCTHW], dim=1)


class Cut(NamedTuple):
    """Frames of one item of a batch that are encoded apart: so many, from the head or from the tail of its clip."""

    item: int
    frames: int
    head: bool


def training_condition(
    video_BCTHW: Tensor,
    names: Sequence[ConditionName],
    encode: Callable[[Tensor], Tensor],
    *,
    time_stride: int,
    causal: bool,
    pad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Encode a batch of clips and the references that each item's condition cuts from its own clip.

    Images and, with a causal autoencoder, clips are encoded apart from the rest of the video, all items of one length
    in one batch. Without causality, given clips are copied from the whole video's latent. `pad` (not causal only)
    repeats a given first or last frame until it fills a latent frame of its own; the clip keeps its length.
    Returns the clean latents x_0 (B, C, T, H, W) and the condition (B, 1 + C, T, H, W).
    """
    if pad and not causal:
        video_BCTHW = torch.stack(
            [_repeat_ends(clip, name, time_stride - 1) for clip, name in zip(video_BCTHW, names, strict=True)]
        )

    def encode_cuts(cuts: Sequence[Cut]) -> Tensor:
        return encode(torch.stack([cut_frames(video_BCTHW[cut.item], cut.frames, head=cut.head) for cut in cuts]))

    return condition_of_latents(encode(video_BCTHW), names, encode_cuts, time_stride=time_stride, causal=causal)


def condition_of_latents(
    x_0_BCTHW: Tensor,
    names: Sequence[ConditionName],
    encode_cuts: Callable[[Sequence[Cut]], Tensor],
    *,
    time_stride: int,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Return x_0 and the condition as `training_condition` does, from latents that are there already.

    `encode_cuts` gives the latents of cuts of one length, in their order; it is asked once for each length.
    """
    latent_frames = x_0_BCTHW.shape[2]
    mask_BT = condition_mask(names, latent_frames, time_stride=time_stride, causal=causal)
    given_BCTHW = x_0_BCTHW.clone()
    for cuts in _cuts_by_length(names, latent_frames, time_stride, causal).values():
        for cut, latent_CTHW in zip(cuts, encode_cuts(cuts), strict=True):
            count = latent_CTHW.shape[1]
            given_BCTHW[cut.item, :, slice(0, count) if cut.head else slice(latent_frames - count, None)] = latent_CTHW
    return x_0_BCTHW, join_condition(mask_BT, given_BCTHW)


def cut_frames(clip_CTHW: Tensor, frames: int, *, head: bool) -> Tensor:
    """Return the first or the last frames of a clip."""
    return clip_CTHW[:, :frames] if head else clip_CTHW[:, -frames:]


def possible_cuts(
    weights: Mapping[ConditionName, float], latent_frames: int, *, time_stride: int, causal: bool
) -> tuple[tuple[int, bool], ...]:
    """Return every (frames, head) that a clip of so many latent frames may have encoded apart, sorted."""
    names = [name for name, weight in applicable(weights, latent_frames, time_stride=time_stride).items() if weight > 0]
    groups = _cuts_by_length(names, latent_frames, time_stride, causal).values()
    return tuple(sorted({(cut.frames, cut.head) for cuts in groups for cut in cuts}))


def _cuts_by_length(
    names: Sequence[ConditionName], latent_frames: int, time_stride: int, causal: bool
) -> dict[int, list[Cut]]:
    """Group what is encoded apart by its frames."""
    groups: dict[int, list[Cut]] = {}
    for item, name in enumerate(names):
        ends = given_ends(name, latent_frames, time_stride=time_stride, causal=causal)
        if name in VIDEO_FRAMES and not causal:
            continue
        for count, head in zip(ends, (True, False), strict=True):
            if count:
                frames = reference_frames(name, causal=causal)
                groups.setdefault(frames, []).append(Cut(item, frames, head))
    return groups


def _repeat_ends(clip_CTHW: Tensor, name: ConditionName, copies: int) -> Tensor:
    """Repeat the first and/or last frame `copies` times, and leave out as many frames as that adds."""
    front = copies if name in ("i2v_head", "i2v_loop") else 0
    back = copies if name in ("i2v_tail", "i2v_loop") else 0
    if clip_CTHW.shape[1] == 1 or not front + back:
        return clip_CTHW
    kept = clip_CTHW[:, : clip_CTHW.shape[1] - front - back] if front else clip_CTHW[:, back:]
    return torch.cat([kept[:, :1].expand(-1, front, -1, -1), kept, kept[:, -1:].expand(-1, back, -1, -1)], dim=1)


def place_references(
    latent_BCTHW: Tensor, name: ConditionName, references: References, *, time_stride: int, causal: bool
) -> Tensor:
    """Return a copy of the latents with every item's references in their frames; items without any stay as they are.

    Heads come from the front of the first reference, tails from the end of the last one.
    """
    head, tail = given_ends(name, latent_BCTHW.shape[2], time_stride=time_stride, causal=causal)
    placed_BCTHW = latent_BCTHW.clone()
    for row_CTHW, clips in zip(placed_BCTHW, references, strict=True):
        if clips is None or not head + tail:
            continue
        for count, clip_CTHW in ((head, clips[0]), (tail, clips[-1])):
            if clip_CTHW.shape[1] < count:
                raise ValueError(f"{name} needs a reference of {count} latent frames, but one has {clip_CTHW.shape[1]}")
        row_CTHW[:, :head] = clips[0][:, :head]
        row_CTHW[:, row_CTHW.shape[1] - tail :] = clips[-1][:, clips[-1].shape[1] - tail :]
    return placed_BCTHW


def inference_condition(
    latent_BCTHW: Tensor, name: ConditionName, references: References, *, time_stride: int, causal: bool
) -> Tensor:
    """Return the condition (B, 1 + C, T, H, W) for making clips like `latent_BCTHW` from encoded references."""
    names: list[ConditionName] = [name if clips is not None else "t2v" for clips in references]
    mask_BT = condition_mask(names, latent_BCTHW.shape[2], time_stride=time_stride, causal=causal)
    empty_BCTHW = torch.zeros_like(latent_BCTHW)
    return join_condition(
        mask_BT, place_references(empty_BCTHW, name, references, time_stride=time_stride, causal=causal)
    )


def trim_repeats(video_BCTHW: Tensor, name: ConditionName, *, time_stride: int, causal: bool) -> Tensor:
    """Drop the copies of a given image that an autoencoder without causality decodes from its latent frame."""
    head = time_stride - 1 if name in ("i2v_head", "i2v_loop") and not causal else 0
    tail = time_stride - 1 if name in ("i2v_tail", "i2v_loop") and not causal else 0
    frames = video_BCTHW.shape[2]
    return video_BCTHW if frames == 1 else video_BCTHW[:, :, head : frames - tail]
