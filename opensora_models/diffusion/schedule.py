"""Times of the solver: 1 is noise, 0 is data; longer and larger clips spend more steps near noise.

Source: SD3 (arXiv 2403.03206), section 5.3.2, with the shift of Open-Sora 2.0 for the number of frames.
"""

import math
from typing import overload

import torch
from torch import Tensor


def linear_shift(tokens: float, *, x1: float = 256, y1: float = 1.0, x2: float = 4096, y2: float = 3.0) -> float:
    """Return the height at `tokens` of the line through (x1, y1) and (x2, y2); it goes on beyond both points."""
    slope = (y2 - y1) / (x2 - x1)
    return slope * tokens + (y1 - slope * x1)


def clip_shift(tokens_per_frame: int, latent_frames: int, *, y1: float = 1.0, y2: float = 3.0) -> float:
    """Return the shift for a clip: the line at the tokens of one frame, times the root of the latent frames."""
    return linear_shift(tokens_per_frame, y1=y1, y2=y2) * math.sqrt(latent_frames)


@overload
def time_shift(alpha: float, times: float) -> float: ...
@overload
def time_shift(alpha: float, times: Tensor) -> Tensor: ...
def time_shift(alpha: float, times: Tensor | float) -> Tensor | float:
    """Move times in [0, 1] towards 1 by the factor alpha on the odds t / (1 - t); alpha = 1 leaves them alone."""
    return alpha * times / (1 + (alpha - 1) * times)


def get_schedule(
    num_steps: int,
    tokens_per_frame: int,
    latent_frames: int,
    *,
    shift: bool = True,
    shift_alpha: float | None = None,
    base_shift: float = 1.0,
    max_shift: float = 3.0,
) -> Tensor:
    """Return the num_steps + 1 times of a run, float32 on the CPU, from 1 down to 0.

    `shift_alpha` takes the place of the shift that follows from the clip's size (`clip_shift`); `shift=False`
    gives evenly spaced times.
    """
    times = torch.linspace(1, 0, num_steps + 1)
    if not shift:
        return times
    if shift_alpha is None:
        shift_alpha = clip_shift(tokens_per_frame, latent_frames, y1=base_shift, y2=max_shift)
    return time_shift(shift_alpha, times)
