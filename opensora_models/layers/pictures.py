"""Clips through coders of pictures."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor


def by_frame(coder: Callable[[Tensor], Tensor], x_BCTHW: Tensor) -> Tensor:
    """Code the frames one after the other where nothing is trained: memory then does not grow with the clip."""
    if torch.is_grad_enabled():
        out = coder(rearrange(x_BCTHW, "b c t h w -> (b t) c h w"))
        return rearrange(out, "(b t) c h w -> b c t h w", b=x_BCTHW.shape[0])
    return torch.stack([coder(frame_BCHW) for frame_BCHW in x_BCTHW.unbind(2)], 2)


def in_portions(coder: Callable[[Tensor], Tensor], x_BCTHW: Tensor, frames: int) -> Tensor:
    """Code the frames of all clips in a row, at most so many at a time: what a coder allocates does not grow with more."""
    batch = x_BCTHW.shape[0]
    row_NCHW = x_BCTHW.transpose(1, 2).flatten(0, 1)
    if len(row_NCHW) <= frames:
        out_NCHW = coder(row_NCHW)
    elif torch.is_grad_enabled():
        out_NCHW = torch.cat([coder(portion) for portion in row_NCHW.split(frames)])
    else:  # each result goes to its place at once: a list of them, and then their sum, would take twice as much
        first = coder(row_NCHW[:frames])
        out_NCHW = first.new_empty(len(row_NCHW), *first.shape[1:])
        out_NCHW[:frames] = first
        del first
        for start in range(frames, len(row_NCHW), frames):
            out_NCHW[start : start + frames] = coder(row_NCHW[start : start + frames])
    return rearrange(out_NCHW, "(b t) c h w -> b c t h w", b=batch)
