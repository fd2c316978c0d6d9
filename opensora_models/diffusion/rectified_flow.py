"""Rectified flow as it is trained: the times, the mix of data and noise, the target and the loss.

Legend: B batch, N image tokens, D token features, T latent frames, L text tokens. Time 1 is noise, 0 is data.
Source: Rectified flow (arXiv 2209.03003); logit-normal times and their shift: SD3 (arXiv 2403.03206), section 3.1.
"""

import torch
from einops import rearrange
from torch import Tensor

from opensora_models.diffusion.schedule import clip_shift, time_shift


def draw_times(
    generator: torch.Generator, batch: int, *, latent_frames: int, height: int, width: int, patch_size: int
) -> Tensor:
    """Draw one time per item, (B,) float32, for latents of height x width pixels: see `training_times`."""
    normal_B = torch.randn(batch, generator=generator, device=generator.device)
    return training_times(normal_B, latent_frames=latent_frames, height=height, width=width, patch_size=patch_size)


def training_times(normal_B: Tensor, *, latent_frames: int, height: int, width: int, patch_size: int) -> Tensor:
    """Turn unit normal draws into times in (0, 1): logit-normal, shifted as sampling shifts a clip of this size.

    `height` and `width` are latent pixels; a frame has height * width / patch_size^2 tokens, in sampling as here.
    """
    alpha = clip_shift(height * width // patch_size**2, latent_frames)
    return time_shift(alpha, torch.sigmoid(normal_B))


def add_noise(x_0_BND: Tensor, noise_BND: Tensor, t_B: Tensor, sigma_min: float) -> Tensor:
    """Return the point at time t on the line from data to noise; at t = 0 a share sigma_min of noise remains."""
    t_B11 = rearrange(t_B, "b -> b 1 1")
    return (1 - t_B11) * x_0_BND + (1 - (1 - sigma_min) * (1 - t_B11)) * noise_BND


def velocity_target(x_0_BND: Tensor, noise_BND: Tensor, sigma_min: float) -> Tensor:
    """Return the derivative of `add_noise` by the time, which the model learns."""
    return (1 - sigma_min) * noise_BND - x_0_BND


def frames_in_loss(given_BT: Tensor) -> Tensor:
    """Return which latent frames count in the loss, (B, T) bool, from which ones the model was given.

    A given first or last frame is left out. If a frame in between is given too (video to video), all frames count.
    """
    given_BT = given_BT.bool()
    inner_B1 = given_BT[:, 1:-1].any(dim=1, keepdim=True)
    return inner_B1 | ~given_BT


def flow_loss(pred_BND: Tensor, target_BND: Tensor, given_BT: Tensor | None = None) -> Tensor:
    """Return the squared error, averaged over each item and then over the batch; float32, a scalar.

    With `given_BT` (see `frames_in_loss`) only the frames that count are averaged; an item without any adds zero.
    """
    error_BND = (pred_BND.float() - target_BND.float()).square()
    if given_BT is None:
        return error_BND.mean()
    error_BT = rearrange(error_BND, "b (t n) d -> b t (n d)", t=given_BT.shape[1]).mean(dim=-1)
    counts_BT = frames_in_loss(given_BT).to(error_BT)
    per_item_B = (error_BT * counts_BT).sum(dim=1) / counts_BT.sum(dim=1).clamp(min=1)
    return per_item_B.mean()


def drop_text(text: Tensor, null_text: Tensor, uniform_B: Tensor, probability: float) -> Tensor:
    """Replace the rows whose uniform draw is below `probability` by the null row (of the empty caption).

    `text` is (B, ...), `null_text` (1, ...) with the same trailing shape.
    """
    drop_B = (uniform_B < probability).to(text.device).view(-1, *[1] * (text.ndim - 1))
    return torch.where(drop_B, null_text.to(text), text)


def fit_null_tokens(null_1LD: Tensor, length: int) -> Tensor:
    """Lengthen null tokens to `length` by repeating the last one; raises ValueError when there are too many."""
    missing = length - null_1LD.shape[1]
    if missing < 0:
        raise ValueError(f"the empty caption has {null_1LD.shape[1]} tokens, the captions have {length}")
    return torch.cat([null_1LD, null_1LD[:, -1:].expand(-1, missing, -1)], dim=1)
