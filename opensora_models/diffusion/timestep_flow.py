"""Rectified flow of Open-Sora 1.2 and 1.3: timesteps 0 (data) to `num_timesteps` (noise), the model gives data - noise.

Legend: B batch, C latent channels, T latent frames, H W latent pixels.
Source: Rectified flow (arXiv 2209.03003); logit-normal times and their shift: SD3 (arXiv 2403.03206), section 3.1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
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
from opensora_models.diffusion.solver import OnStep, solve

TransformName = Literal["v1.2", "v1.3"]
BASE_PIXELS = 512 * 512
"""Pixels of the image whose times are not shifted."""


def latent_frames_of(frames: int, transform: TransformName) -> int:
    """Return how many latent frames the shift counts for a clip; at least one, for a shift of 0 would leave no noise."""
    if frames == 1:
        return 1
    return max(1, frames // 17 * 5 if transform == "v1.2" else (frames - 1) // 4)


def shift_ratio(height: float, width: float, latent_frames: int, scale: float = 1.0) -> Tensor:
    """Return the factor on the odds of a time, a float32 scalar; `height` and `width` are pixels.

    In float32 throughout: with a mask, the last bit of the first time decides which frames take part in its step.
    """
    space = (torch.tensor(float(height)) * torch.tensor(float(width)) / BASE_PIXELS).sqrt()
    return space * torch.tensor(float(latent_frames)).sqrt() * scale


def shift_timesteps(t_B: Tensor, ratio: Tensor, num_timesteps: int) -> Tensor:
    """Move timesteps towards noise by the factor `ratio` on their odds."""
    share_B = t_B / num_timesteps
    return ratio.to(share_B) * share_B / (1 + (ratio.to(share_B) - 1) * share_B) * num_timesteps


@dataclass(frozen=True)
class TimestepFlow:
    """The flow as a `Process`; the fields are those of `TimestepFlowConfig`."""

    num_timesteps: int = 1000
    use_discrete_timesteps: bool = False
    sample_method: Literal["uniform", "logit-normal"] = "uniform"
    loc: float = 0.0
    scale: float = 1.0
    use_timestep_transform: bool = False
    transform: TransformName = "v1.2"
    transform_scale: float = 1.0
    scale_temporal: bool = True

    solvers: ClassVar[tuple[ProcessSolver, ...]] = ("euler", "heun", "dpmpp_2m")

    @property
    def noise_time(self) -> float:
        """The time of pure noise."""
        return float(self.num_timesteps)

    def draw_times(self, generator: torch.Generator, batch: int, clip: ClipSize) -> Tensor:
        """Draw timesteps, (B,) float32, and shift them for the clip's size if the transform is on."""
        options = {"generator": generator, "device": generator.device}
        if self.use_discrete_timesteps:
            t_B = torch.randint(0, self.num_timesteps, (batch,), **options).float()
        elif self.sample_method == "uniform":
            t_B = torch.rand(batch, **options) * self.num_timesteps
        else:
            t_B = torch.sigmoid(torch.randn(batch, **options) * self.scale + self.loc) * self.num_timesteps
        return self._shifted(t_B, clip, trains=True)

    def add_noise(self, x_0: Tensor, noise: Tensor, t_B: Tensor, active_BT: Tensor | None = None) -> Tensor:
        """Return the point at the times on the line from data to noise; frames that are not active stay data."""
        share = per_item(t_B / self.num_timesteps, x_0)
        x_t = (1 - share) * x_0 + share * noise
        return x_t if active_BT is None else torch.where(per_frame(active_BT.bool(), x_0), x_t, x_0)

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
        error = (self._velocity(out, x_0) - (x_0 - noise).float()).square()
        loss_B = mean_per_item(error, active_BT)
        return loss_B if weights_B is None else weights_B * loss_B

    def times(self, steps: int, clip: ClipSize) -> Tensor:
        """Return the timesteps that steps start at, (steps,) float32 on the CPU, falling from `noise_time`."""
        evenly = [(1.0 - step / steps) * self.num_timesteps for step in range(steps)]
        if self.use_discrete_timesteps:
            evenly = [float(round(time)) for time in evenly]
        return self._shifted(torch.tensor(evenly), clip, trains=False)

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
        """Follow the velocity to the data; see `Process`. Raises ValueError for a mask with a solver other than euler."""
        check_solver(solver, self)
        times = self.times(steps, clip)
        if mask_BT is not None and solver != "euler":
            raise ValueError(f"solver {solver} does not know masks of frames. Use euler")
        if mask_BT is not None:
            return self._masked_euler(predict, start.float(), times, mask_BT, draw, on_step)

        def velocity(x: Tensor, share: float, step: int) -> Tensor:
            t_B = torch.full((len(x),), share * self.num_timesteps, device=x.device)
            return -self._velocity(predict(x, t_B, None, step), x)

        shares = (times.double() / self.num_timesteps).tolist()
        return solve(velocity, start.float(), [*shares, 0.0], solver, on_step)

    def _masked_euler(
        self, predict: Predict, x: Tensor, times: Tensor, mask_BT: Tensor, draw: Draw, on_step: OnStep | None
    ) -> Tensor:
        """Euler's steps where each frame joins, with noise of its own, at the time that its mask says."""
        ends, mask_BT = torch.cat([times[1:], times.new_zeros(1)]), mask_BT.to(x.device)
        joined_BT = mask_BT == 1
        for step, (now, then) in enumerate(zip(times.tolist(), ends.tolist(), strict=True)):
            t_B = torch.full((len(x),), now, device=x.device)
            active_BT = mask_BT * self.num_timesteps >= t_B[:, None]
            joins_BT = active_BT & ~joined_BT
            if joins_BT.any():
                x = self.add_noise(x, draw(step, "frames").to(x), t_B, joins_BT)
            moved = x + self._velocity(predict(x, t_B, active_BT, step), x) * ((now - then) / self.num_timesteps)
            x = torch.where(per_frame(active_BT, x), moved, x)
            joined_BT = active_BT
            if on_step is not None:
                on_step(step + 1, len(times))
        return x

    def _velocity(self, out: Tensor, like: Tensor) -> Tensor:
        """Leave out the channels of the variance, which a flow does not have."""
        return out[:, : like.shape[1]].float()

    def _shifted(self, t_B: Tensor, clip: ClipSize, *, trains: bool) -> Tensor:
        if not self.use_timestep_transform:
            return t_B
        counts = self.transform == "v1.2" or self.scale_temporal
        latent_frames = latent_frames_of(clip.frames, self.transform) if counts else 1
        # v1.2 leaves its scale out of sampling, v1.3 out of images.
        scales = trains if self.transform == "v1.2" else clip.frames > 1
        scale = self.transform_scale if scales else 1.0
        return shift_timesteps(t_B, shift_ratio(clip.height, clip.width, latent_frames, scale), self.num_timesteps)
