"""Classifier-free guidance by text and by image, and which model branches a step needs.

A guided velocity is u2 + g_img * (u - u2) + g_txt * (c - u), with
    c   the caption and the visual condition,
    u   the negative prompt and the visual condition,
    u2  the negative prompt alone.
Written as a weighted sum, c weighs g_txt, u weighs g_img - g_txt and u2 weighs 1 - g_img: a branch whose weight is
zero in every frame need not be evaluated. Without a visual condition u2 is u.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

Branch = Literal["caption", "negative", "negative_unconditioned"]
FIRST_OSCILLATION = 10


@dataclass(frozen=True)
class GuidanceScales:
    """Scales of one run, how they change over steps and frames (unitless), and the times between which they act."""

    text: float
    image: float = 1.0
    text_oscillates: bool = False
    image_oscillates: bool = False
    image_grows_over_frames: bool = False
    time_min: float = 0.0
    time_max: float = 1.0

    def act_at(self, time: float) -> bool:
        """Whether a step that starts at `time` is guided at all (Kynkaanniemi et al., arXiv 2404.07724)."""
        return self.time_min <= min(time, 1.0) <= self.time_max  # a shifted schedule may start a rounding error above 1


def oscillate(scale: float, step: int, first: int = FIRST_OSCILLATION) -> float:
    """Return the scale of a 0-based step: from step `first` on, every odd step uses 1."""
    return 1.0 if step >= first and step % 2 else scale


def image_ramp(scale: float, step: int, num_steps: int, latent_frames: int) -> Tensor:
    """Return the image scale of every latent frame, (T,) float32: from 1 at the first up to a value for the last.

    That value falls linearly from `scale` at step 0 and would be 1 after the last step.
    """
    upper = torch.linspace(scale, 1.0, num_steps + 1)[step]
    return torch.linspace(1.0, float(upper), latent_frames)


def step_scales(
    scales: GuidanceScales, step: int, num_steps: int, latent_frames: int, time: float | None = None
) -> tuple[float, Tensor]:
    """Return the text scale and the image scales per latent frame, (T,) float32, of a 0-based step.

    A step that starts at a `time` when the scales do not act has all of them at 1.
    """
    if time is not None and not scales.act_at(time):
        return 1.0, torch.ones(latent_frames)
    text = oscillate(scales.text, step) if scales.text_oscillates else scales.text
    image = oscillate(scales.image, step) if scales.image_oscillates else scales.image
    if scales.image_grows_over_frames and image > 1:
        return text, image_ramp(image, step, num_steps, latent_frames)
    return text, torch.full((latent_frames,), image)


def branch_weights(text: float, image_T: Tensor, *, has_condition: bool) -> dict[Branch, Tensor]:
    """Return the weight per latent frame, (T,) each, of the branches that a step has to evaluate.

    `has_condition` says whether any item of the batch has a visual condition. The weights add up to 1.
    """
    weights: dict[Branch, Tensor] = {"caption": torch.full_like(image_T, text)}
    if has_condition:
        weights["negative"] = image_T - text
        weights["negative_unconditioned"] = 1 - image_T
    else:
        weights["negative"] = torch.full_like(image_T, 1 - text)
    return {branch: weight_T for branch, weight_T in weights.items() if weight_T.any()}


def combine(velocity_BND: dict[Branch, Tensor], weights: dict[Branch, Tensor]) -> Tensor:
    """Return the guided velocity (B, N, D), float32, from the branches' velocities and weights per latent frame."""
    first_BND = next(iter(velocity_BND.values()))
    total_BND = torch.zeros_like(first_BND, dtype=torch.float32)
    for branch, weight_T in weights.items():
        tokens = first_BND.shape[1] // len(weight_T)
        weight_N1 = rearrange(repeat(weight_T, "t -> t n", n=tokens), "t n -> (t n) 1")
        total_BND += weight_N1.to(total_BND) * velocity_BND[branch].float()
    return total_BND
