"""Rectified flow as it is trained: the times, the mix of data and noise, the target and the loss.

Legend: B batch, N image tokens, D token features, T latent frames, L text tokens. Time 1 is noise, 0 is data.
Source: Rectified flow (arXiv 2209.03003); logit-normal times and their shift: SD3 (arXiv 2403.03206), section 3.1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from opensora_models.diffusion.process import (
    ClipSize,
    Draw,
    Predict,
    ProcessSolver,
    check_solver,
    mean_per_item,
    per_frame,
    per_item,
)
from opensora_models.diffusion.schedule import clip_shift, get_schedule, time_shift
from opensora_models.diffusion.solver import OnStep, solve


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


def add_noise(x_0: Tensor, noise: Tensor, t_B: Tensor, sigma_min: float) -> Tensor:
    """Return the point at time t on the line from data to noise, any shape; at t = 0 a share sigma_min of noise remains."""
    t = per_item(t_B, x_0)
    return (1 - t) * x_0 + (1 - (1 - sigma_min) * (1 - t)) * noise


def velocity_target(x_0: Tensor, noise: Tensor, sigma_min: float) -> Tensor:
    """Return the derivative of `add_noise` by the time, which the model learns."""
    return (1 - sigma_min) * noise - x_0


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


@dataclass(frozen=True)
class RectifiedFlow:
    """Rectified flow as a `Process`: times in [0, 1], the model gives noise - data. Frames are given by its condition.

    Sampling's times are shifted by what follows from the clip's size, by `shift_alpha`, or not at all.
    """

    sigma_min: float = 1e-5
    shift: bool = True
    shift_alpha: float | None = None

    noise_time: ClassVar[float] = 1.0
    solvers: ClassVar[tuple[ProcessSolver, ...]] = ("euler", "heun", "dpmpp_2m")

    def draw_times(self, generator: torch.Generator, batch: int, clip: ClipSize) -> Tensor:
        """Draw logit-normal times, shifted for the clip's size, (B,) float32."""
        return draw_times(
            generator, batch, latent_frames=clip.latent_frames, height=clip.tokens_per_frame, width=1, patch_size=1
        )

    def add_noise(self, x_0: Tensor, noise: Tensor, t_B: Tensor, active_BT: Tensor | None = None) -> Tensor:
        """Return x_0 at the times; frames that are not active are at time 0."""
        x_t = add_noise(x_0, noise, t_B, self.sigma_min)
        if active_BT is None:
            return x_t
        given = add_noise(x_0, noise, torch.zeros_like(t_B), self.sigma_min)
        return torch.where(per_frame(active_BT.bool(), x_0), x_t, given)

    def losses(
        self,
        out: Tensor,
        x_0: Tensor,
        x_t: Tensor,
        noise: Tensor,
        t_B: Tensor,
        active_BT: Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """Return each item's squared error of the velocity, (B,) float32; x_t and the times do not enter."""
        error = (out.float() - velocity_target(x_0, noise, self.sigma_min).float()).square()
        loss_B = mean_per_item(error, active_BT)
        return loss_B if weights_B is None else weights_B * loss_B

    def sample(
        self,
        predict: Predict,
        start: Tensor,
        clip: ClipSize,
        *,
        steps: int,
        solver: ProcessSolver,
        draw: Draw,
        mask_BT: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Follow the velocity from noise to data; nothing is drawn. Raises ValueError for a mask."""
        check_solver(solver, self)
        if mask_BT is not None:
            raise ValueError("rectified_flow takes given frames as the model's condition. Leave the mask out")
        times = get_schedule(
            steps, clip.tokens_per_frame, clip.latent_frames, shift=self.shift, shift_alpha=self.shift_alpha
        )

        def velocity(x: Tensor, time: float, step: int) -> Tensor:
            return predict(x, torch.full((len(x),), time, device=x.device), None, step).float()

        return solve(velocity, start.float(), times.tolist(), solver, on_step)
