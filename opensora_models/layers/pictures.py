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
