"""What the denoisers of latents are told beside the clip, by the names of their arguments.

Each family takes some of these and says which in `conditions`. Legend: B batch, L text tokens, D features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from opensora_models.text.features import TextFeatures

IMAGE_FPS = 120.0
"""Frames per second that stand for a picture. Source: Open-Sora 1.2."""
USUAL_FPS = 24.0
"""Frames per second of a clip that does not say."""


class PixelSize(NamedTuple):
    """Frames, height and width of the clips of a batch."""

    frames: int
    height: int
    width: int


def text_conditions(text: TextFeatures) -> dict[str, Tensor]:
    """Return text tokens `text_BLD` with `text_mask_BL`, CLIP's vector as one such token, or `labels_B`."""
    found: dict[str, Tensor] = {}
    if "t5" in text:
        found["text_BLD"] = text["t5"]
    if "t5_mask" in text:
        found["text_mask_BL"] = text["t5_mask"]
    if "clip" in text:
        found["text_BLD"] = text["clip"][:, None]
    if "labels" in text:
        found["labels_B"] = text["labels"]
    return found


def clip_conditions(size: PixelSize, fps: Sequence[float], device: torch.device) -> dict[str, Tensor]:
    """Return frame rate, height, width, frames and height over width of every clip; an fps of 0 is an unknown one."""
    known = [IMAGE_FPS if size.frames == 1 else rate or USUAL_FPS for rate in fps]
    same = {
        "height_B": float(size.height),
        "width_B": float(size.width),
        "num_frames_B": float(size.frames),
        "aspect_B": size.height / size.width,
    }
    found = {name: torch.full((len(fps),), value, device=device) for name, value in same.items()}
    return {"fps_B": torch.tensor(known, device=device), **found}


def conditions_of(denoiser: nn.Module) -> frozenset[str]:
    """Return the names of what a denoiser of latents takes."""
    found = denoiser.conditions
    assert isinstance(found, frozenset)
    return found
