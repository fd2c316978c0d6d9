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
    batch, _, length = x_BCTHW.shape[:3]
    total = batch * length

    def coded(start: int) -> Tensor:
        places = [divmod(place, length) for place in range(start, min(start + frames, total))]
        return coder(torch.stack([x_BCTHW[clip, :, frame] for clip, frame in places]))

    if torch.is_grad_enabled() or total <= frames:
        out_NCHW = torch.cat([coded(start) for start in range(0, total, frames)]) if total > frames else coded(0)
    else:  # each result goes to its place at once: a list of them, and then their sum, would take twice as much
        first = coded(0)
        out_NCHW = first.new_empty(total, *first.shape[1:])
        out_NCHW[:frames] = first
        del first
        for start in range(frames, total, frames):
            out_NCHW[start : start + frames] = coded(start)
    return rearrange(out_NCHW, "(b t) c h w -> b c t h w", b=batch)
