"""Training masks of Open-Sora 1.1 and 1.2: which latent frames of a clip are given (false), and which denoised (true).

The rule is a function of numbers in [0, 1), and where they come from is another's business.
Legend: B batch, T latent frames. Source: Open-Sora 1.2, utils/train_utils.py, MaskGenerator.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from schemas.frame_mask import FrameMaskName

SHARES = (0.1, 0.9)
"""Least and largest share of frames that `random` gives."""


class MaskDraws(NamedTuple):
    """Numbers in [0, 1) that one clip's mask is made of; a kind of mask reads those it needs."""

    size: float
    place: float
    share: float
    frames: Tensor
    """One number for each latent frame, (T,)."""


def pick_mask(ratios: Mapping[FrameMaskName, float], uniform: float) -> FrameMaskName:
    """Return the kind of mask that a draw in [0, 1) falls to, ratios laid end to end in their order; identity behind them."""
    reached = 0.0
    for name, ratio in ratios.items():
        reached += ratio
        if uniform < reached:
            return name
    return "identity"


def frame_mask(name: FrameMaskName, draws: MaskDraws) -> Tensor:
    """Return the mask (T,) bool of one clip, true where a frame is denoised, as long as `draws.frames`.

    Pictures are always denoised. Of a clip too short for a quarter, the quarter is one frame; one that would be given
    whole has its last frame denoised, since something must be learnt from it.
    """
    frames = len(draws.frames)
    mask_T = torch.ones(frames, dtype=torch.bool)
    if frames <= 1 or name == "identity":
        return mask_T
    if name == "random":
        least, most = SHARES
        mask_T = draws.frames > least + (most - least) * draws.share
    elif name == "interpolate":
        mask_T[_whole(draws.place, 2) :: 2] = False
    else:
        kind, _, where = name.partition("_")
        count = 1 + _whole(draws.size, frames // 4) if kind == "quarter" else 1
        if where == "random":
            start = _whole(draws.place, frames - count + 1)
            mask_T[start : start + count] = False
        if where.startswith("head"):
            mask_T[:count] = False
        if where.endswith("tail"):
            mask_T[-count:] = False
    if not mask_T.any():
        mask_T[-1] = True
    return mask_T


def draw_frame_masks(
    ratios: Mapping[FrameMaskName, float], batch: int, latent_frames: int, generator: torch.Generator
) -> Tensor:
    """Draw a mask for each clip of a batch: (B, T) bool on the CPU, true where a frame is denoised."""
    draws = torch.rand(batch, 4 + latent_frames, generator=generator)
    return torch.stack([_drawn(ratios, row) for row in draws])


def _drawn(ratios: Mapping[FrameMaskName, float], row: Tensor) -> Tensor:
    kind, size, place, share = row[:4].tolist()
    return frame_mask(pick_mask(ratios, kind), MaskDraws(size, place, share, row[4:]))


def _whole(uniform: float, count: int) -> int:
    """Return a whole number from 0 up to, not including, `count`; 0 where there is none."""
    return int(uniform * count)
