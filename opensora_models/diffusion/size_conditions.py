"""What the denoisers of Open-Sora 1.x are told of a clip besides its caption: size, length and frame rate. B batch."""

import torch
from torch import Tensor

IMAGE_FPS = 120.0
"""Frames per second that pictures have: as if they were taken from a very fast clip."""


def size_conditions(
    batch: int, height: int, width: int, num_frames: int, fps: float, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Return the conditions of clips of one size by their names, (B,) float32 each.

    Height and width are pixels, frames pixel frames, the rate frames per second (that of pictures is fixed), aspect is
    height / width. Source: Open-Sora 1.2, prepare_multi_resolution_info.
    """
    values = {
        "height_B": height,
        "width_B": width,
        "num_frames_B": num_frames,
        "aspect_B": height / width,
        "fps_B": fps if num_frames > 1 else IMAGE_FPS,
    }
    return {name: torch.full((batch,), float(value), device=device) for name, value in values.items()}
