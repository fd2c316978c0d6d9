"""Classifier-free guidance of the models of Open-Sora 1.x: from the outputs of branches to one.

An output (B, C_out, T, H, W) holds the prediction in its first channels and, with a learned variance, that behind.
Source: Ho and Salimans (arXiv 2207.12598).
"""

import torch
from torch import Tensor

RESCALED = 0.7
"""Share of a guided prediction that is given the deviation of the conditional one."""


def guided(conditional: Tensor, unconditional: Tensor, scale: float, cfg_channels: int | None = None) -> Tensor:
    """Return the guided output: the first `cfg_channels` channels (None: half) are guided, the rest is conditional."""
    channels = conditional.shape[1] // 2 if cfg_channels is None else cfg_channels
    first, base = conditional[:, :channels], unconditional[:, :channels]
    return torch.cat([base + scale * (first - base), conditional[:, channels:]], dim=1)


def guided_by_image(full: Tensor, image: Tensor, nothing: Tensor, text_scale: float, image_scale: Tensor) -> Tensor:
    """Return what follows from three branches: caption and image, image alone, and neither.

    `image_scale` is a scalar or (T,), one scale a latent frame.
    """
    frames = image_scale.view(-1, 1, 1).to(full)
    return nothing + frames * (image - nothing) + text_scale * (full - image)


def image_scales(scale: float, first: float, step: int, num_steps: int, latent_frames: int) -> Tensor:
    """Return the image scale of every latent frame, (T,) float32: from `first` at the first frame up to a value.

    That value goes over the steps from `scale` at step 0 to `first` at the last one. A scale of 1, as `oscillate` gives
    on its quiet steps, is that of all frames.
    """
    if scale <= 1:
        return torch.full((latent_frames,), scale)
    upper = torch.linspace(scale, first, num_steps)[step]
    return torch.linspace(first, float(upper), latent_frames)


def deviation_fixed(guided_out: Tensor, conditional: Tensor) -> Tensor:
    """Bring a guided prediction's standard deviation, over all but the batch, nearer to the conditional one's.

    Both are predictions alone, without channels of a variance. Source: Lin et al. (arXiv 2305.08891), section 3.4.
    """
    axes = tuple(range(1, guided_out.ndim))
    ratio = conditional.std(dim=axes, keepdim=True) / guided_out.std(dim=axes, keepdim=True)
    return guided_out * (RESCALED * ratio + 1 - RESCALED)
