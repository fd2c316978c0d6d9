"""Training an autoencoder on clips and images in turn: how many frames of a batch are kept."""

from typing import Literal

import torch

Strategy = Literal["none", "mixed_video_image", "mixed_video_random"]


def frames_to_keep(
    frames: int, strategy: Strategy, image_ratio: float, generator: torch.Generator, *, time_stride: int, causal: bool
) -> int:
    """Return how many frames of a batch are trained on: all, one with probability `image_ratio`, or any that fit.

    A number fits if the autoencoder gives back as many: 1, and k strides (causal: k strides and one more).
    """
    if strategy == "mixed_video_image":
        return 1 if float(torch.rand((), generator=generator)) < image_ratio else frames
    if strategy == "mixed_video_random":
        lengths = sorted({1, *range(time_stride + causal, frames + 1, time_stride)})
        drawn: int = lengths[int(torch.randint(len(lengths), (), generator=generator))]
        return drawn
    return frames
