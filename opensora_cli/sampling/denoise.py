"""From noise to a latent: Euler steps along the velocity that the model predicts.

Legend: B samples, C latent channels, T latent frames, H W latent pixels, N image tokens, D features, L text tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from opensora_models.diffusion.guidance import Branch, GuidanceScales, branch_weights, combine, step_scales
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack

OnStep = Callable[[int, int], None]
"""Called after each step with the steps done and the steps in all."""


@dataclass(frozen=True)
class EncodedText:
    """What the text encoders make of one prompt per sample: `tokens` (B, L, D) of T5, `vector` (B, D) of CLIP."""

    tokens: Tensor
    vector: Tensor


@dataclass(frozen=True)
class Denoised:
    """A clean `latent` (B, C, T, H, W) float32, and how often the model was evaluated for each sample."""

    latent: Tensor
    evaluations: int


@torch.no_grad()
def denoise(
    model: nn.Module,
    noise_BCTHW: Tensor,
    caption: EncodedText,
    negative: EncodedText,
    *,
    times: Tensor,
    scales: GuidanceScales,
    patch_size: int,
    condition_BCTHW: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Denoised:
    """Denoise with guidance by text and image; `times` are the num_steps + 1 times from 1 to 0.

    `condition_BCTHW` is (B, 1 + C, T, H, W), all zero for text to video, None for a model that takes no condition.
    A step evaluates only the branches that count in it, in one forward. The latent is kept in float32 between steps
    whatever the precision of the model.
    """
    batch, _, frames, height, width = noise_BCTHW.shape
    dtype, num_steps = _dtype(model), len(times) - 1
    img_BND = pack(noise_BCTHW.float(), patch_size)
    branches = _branch_inputs(caption, negative, condition_BCTHW, patch_size)
    has_condition = condition_BCTHW is not None and bool(condition_BCTHW[:, 0].any())
    ids_BN3 = image_ids(frames, height, width, patch_size, batch=batch, device=img_BND.device)
    evaluations = 0
    for step, (now, then) in enumerate(pairwise(times.tolist())):
        text_scale, image_scales_T = step_scales(scales, step, num_steps, frames)
        weights = branch_weights(text_scale, image_scales_T, has_condition=has_condition)
        inputs = _stack([branches[branch] for branch in weights])
        copies = len(weights)
        velocity_BND = model(
            img_BND=img_BND.to(dtype).repeat(copies, 1, 1),
            img_ids_BN3=ids_BN3.repeat(copies, 1, 1),
            txt_BLD=inputs.tokens.to(dtype),
            txt_ids_BL3=_text_ids(inputs.tokens),
            timesteps_B=torch.full((copies * batch,), now, device=img_BND.device),
            y_vec_BD=inputs.vector.to(dtype),
            cond_BND=None if inputs.cond is None else inputs.cond.to(dtype),
        )
        velocities = dict(zip(weights, velocity_BND.chunk(copies), strict=True))
        img_BND = img_BND + (then - now) * combine(velocities, weights)
        evaluations += copies
        if on_step is not None:
            on_step(step + 1, num_steps)
    return Denoised(unpack(img_BND, frames, height, width, patch_size), evaluations)


@torch.no_grad()
def denoise_distilled(
    model: nn.Module,
    noise_BCTHW: Tensor,
    caption: EncodedText,
    *,
    times: Tensor,
    guidance: float,
    patch_size: int,
    condition_BCTHW: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Denoised:
    """Denoise with a model that takes the guidance scale as an input: one evaluation a step, no negative prompt."""
    batch, _, frames, height, width = noise_BCTHW.shape
    dtype, num_steps, device = _dtype(model), len(times) - 1, noise_BCTHW.device
    img_BND = pack(noise_BCTHW.float(), patch_size)
    cond_BND = None if condition_BCTHW is None else pack(condition_BCTHW.to(dtype), patch_size)
    for step, (now, then) in enumerate(pairwise(times.tolist())):
        velocity_BND = model(
            img_BND=img_BND.to(dtype),
            img_ids_BN3=image_ids(frames, height, width, patch_size, batch=batch, device=device),
            txt_BLD=caption.tokens.to(dtype),
            txt_ids_BL3=_text_ids(caption.tokens),
            timesteps_B=torch.full((batch,), now, device=device),
            y_vec_BD=caption.vector.to(dtype),
            cond_BND=cond_BND,
            guidance_B=torch.full((batch,), guidance, device=device),
        )
        img_BND = img_BND + (then - now) * velocity_BND.float()
        if on_step is not None:
            on_step(step + 1, num_steps)
    return Denoised(unpack(img_BND, frames, height, width, patch_size), num_steps)


@dataclass(frozen=True)
class _BranchInput:
    """What tells the branches of one step apart."""

    tokens: Tensor
    vector: Tensor
    cond: Tensor | None


def _branch_inputs(
    caption: EncodedText, negative: EncodedText, condition_BCTHW: Tensor | None, patch_size: int
) -> dict[Branch, _BranchInput]:
    cond_BND = None if condition_BCTHW is None else pack(condition_BCTHW, patch_size)
    nothing_BND = None if cond_BND is None else torch.zeros_like(cond_BND)
    return {
        "caption": _BranchInput(caption.tokens, caption.vector, cond_BND),
        "negative": _BranchInput(negative.tokens, negative.vector, cond_BND),
        "negative_unconditioned": _BranchInput(negative.tokens, negative.vector, nothing_BND),
    }


def _stack(inputs: list[_BranchInput]) -> _BranchInput:
    conditions = [one.cond for one in inputs if one.cond is not None]
    return _BranchInput(
        torch.cat([one.tokens for one in inputs]),
        torch.cat([one.vector for one in inputs]),
        torch.cat(conditions) if conditions else None,
    )


def _text_ids(tokens_BLD: Tensor) -> Tensor:
    return text_ids(tokens_BLD.shape[1], batch=len(tokens_BLD), device=tokens_BLD.device)


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype
