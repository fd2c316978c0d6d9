"""Improved DDPM of Open-Sora 1.0 and 1.1 as a `Process`: the times are the timesteps 0 to diffusion_steps - 1.

Legend: B batch, C latent channels, T latent frames, S steps.
Sources: Improved DDPM (arXiv 2102.09672); DDIM (arXiv 2010.02502), equation 12; DPM-Solver++ (arXiv 2211.01095).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from opensora_models.diffusion.betas import ScheduleName, named_betas, space_timesteps, spaced_betas
from opensora_models.diffusion.dpm_solver import NoiseSchedule, multistep
from opensora_models.diffusion.gaussian import Gaussian, at, discrete_log_likelihood, divergence
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
from opensora_models.diffusion.solver import OnStep
from opensora_models.diffusion.speed import draw_steps, step_weights


@dataclass(frozen=True)
class IDDPM:
    """The diffusion; the fields are those of `IDDPMConfig`."""

    diffusion_steps: int = 1000
    noise_schedule: ScheduleName = "linear"
    timestep_respacing: str = ""
    learn_sigma: bool = True
    sigma_small: bool = False
    predict_xstart: bool = False
    use_kl: bool = False
    rescale_learned_sigmas: bool = False
    clip_denoised: bool = False
    ddim_eta: float = 0.0
    speed: bool = False

    solvers: ClassVar[tuple[ProcessSolver, ...]] = ("ddpm", "ddim", "dpmpp_2m")

    @property
    def noise_time(self) -> float:
        """The last timestep."""
        return float(self.diffusion_steps - 1)

    @cached_property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps that are trained, rising."""
        return space_timesteps(self.diffusion_steps, self.timestep_respacing)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The diffusion over these."""
        return self._over(self.timesteps)

    def draw_times(self, generator: torch.Generator, batch: int, clip: ClipSize) -> Tensor:
        """Draw timesteps, (B,) float32: all are as likely, or with `speed` those where the noise changes."""
        if self.speed:
            index_B = draw_steps(generator, batch, self.gaussian.alphas_cumprod)
        else:
            index_B = torch.randint(0, len(self.timesteps), (batch,), generator=generator, device=generator.device)
        return self._timesteps_on(index_B.device)[index_B].float()

    def add_noise(self, x_0: Tensor, noise: Tensor, t_B: Tensor, active_BT: Tensor | None = None) -> Tensor:
        """Return a draw of the latent after the timesteps; frames that are not active are after the first."""
        index_B = self._index(t_B)
        x_t = self.gaussian.noised(x_0, index_B, noise)
        if active_BT is None:
            return x_t
        given = self.gaussian.noised(x_0, torch.zeros_like(index_B), noise)
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
        """Return each item's loss, (B,) float32: the sum of `loss_terms`."""
        return sum(self.loss_terms(out, x_0, x_t, noise, t_B, active_BT, weights_B).values())

    def loss_terms(
        self,
        out: Tensor,
        x_0: Tensor,
        x_t: Tensor,
        noise: Tensor,
        t_B: Tensor,
        active_BT: Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `mse`, the squared error, and `vb`, the variational bound in bits, (B,) each: what the config trains.

        The bound trains the variance alone beside the squared error, and everything with `use_kl`.
        """
        out, index_B = out.float(), self._index(t_B)
        if self.use_kl:
            return {"vb": self._bound(out, x_0, x_t, index_B, active_BT) * len(self.timesteps)}
        prediction, variance = out[:, : x_0.shape[1]], out[:, x_0.shape[1] :]
        target = x_0 if self.predict_xstart else noise
        mse_B = mean_per_item((target - prediction).square(), active_BT)
        if self.speed:
            mse_B = mse_B * step_weights(self.gaussian.alphas_cumprod).to(mse_B.device)[index_B].float()
        terms = {"mse": mse_B if weights_B is None else weights_B * mse_B}
        if self.learn_sigma:
            frozen = torch.cat([prediction.detach(), variance], dim=1)
            share = len(self.timesteps) / 1000 if self.rescale_learned_sigmas else 1.0
            terms["vb"] = self._bound(frozen, x_0, x_t, index_B, active_BT) * share
        return terms

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
        """Go from noise to data in `steps` of the timesteps, evenly spread; see `Process`.

        Raises ValueError for a mask with dpmpp_2m, and for steps other than those of `timestep_respacing`.
        """
        check_solver(solver, self)
        if solver == "dpmpp_2m":
            if mask_BT is not None:
                raise ValueError("solver dpmpp_2m does not know masks of frames. Use ddpm or ddim")
            return self._dpmpp(predict, start.float(), steps, on_step)
        timesteps = self._sampled_timesteps(steps)
        gaussian = self._over(timesteps)
        level_BT = None if mask_BT is None else (mask_BT.to(start.device) * len(timesteps)).int()
        x = start.float()
        for step, index in enumerate(reversed(range(len(timesteps)))):
            index_B = torch.full((len(x),), index, device=x.device)
            before, active_BT = x, None
            if level_BT is not None:
                active_BT = level_BT > index
                joins = per_frame(level_BT == index, x)
                if joins.any():
                    x = torch.where(joins, gaussian.noised(x, index_B, draw(step, "frames").to(x)), x)
            t_B = torch.full((len(x),), float(timesteps[index]), device=x.device)
            out = predict(x, t_B, active_BT, step).float()
            mean, deviation = self._step(gaussian, out, x, index_B, solver)
            # The last step is the mean: its noise would only be seen.
            x = mean if index == 0 else mean + deviation * draw(step, "step").to(x)
            if level_BT is not None:
                x = torch.where(per_frame(level_BT < index, x), before, x)
            if on_step is not None:
                on_step(step + 1, len(timesteps))
        return x

    def _step(
        self, gaussian: Gaussian, out: Tensor, x: Tensor, index_B: Tensor, solver: ProcessSolver
    ) -> tuple[Tensor, Tensor]:
        """Return the mean of the step before, and the standard deviation with which it is drawn."""
        back, x_0 = gaussian.step_back(out, x, index_B, clip=self.clip_denoised)
        if solver == "ddpm":
            return back.mean, (0.5 * back.log_variance).exp()
        kept, kept_prev = gaussian.alphas_cumprod, gaussian.alphas_cumprod_prev
        sigma_S = self.ddim_eta * ((1 - kept_prev) / (1 - kept) * (1 - kept / kept_prev)).sqrt()
        onward = at((1 - kept_prev - sigma_S.square()).clamp(min=0).sqrt(), index_B, x)
        mean = at(kept_prev.sqrt(), index_B, x) * x_0 + onward * gaussian.predicted_noise(x_0, x, index_B)
        return mean, at(sigma_S, index_B, x)

    def _dpmpp(self, predict: Predict, x: Tensor, steps: int, on_step: OnStep | None) -> Tensor:
        schedule = NoiseSchedule(named_betas(self.noise_schedule, self.diffusion_steps))

        def data(x: Tensor, time: float, step: int) -> Tensor:
            t_B = torch.full((len(x),), time * self.diffusion_steps - 1, device=x.device)
            first = predict(x, t_B, None, step)[:, : x.shape[1]].float()
            if self.predict_xstart:
                return first
            t = torch.tensor(time, dtype=torch.float64)
            return (x - schedule.sigma(t).item() * first) / schedule.log_alpha(t).exp().item()

        return multistep(data, x, schedule, schedule.evenly(steps), on_step=on_step)

    def _sampled_timesteps(self, steps: int) -> tuple[int, ...]:
        if not self.timestep_respacing:
            return space_timesteps(self.diffusion_steps, str(steps))
        if steps != len(self.timesteps):
            raise ValueError(
                f"num_steps = {steps}, but timestep_respacing = {self.timestep_respacing!r} has {len(self.timesteps)}. "
                "Give as many, or leave timestep_respacing empty"
            )
        return self.timesteps

    def _over(self, timesteps: tuple[int, ...]) -> Gaussian:
        betas = spaced_betas(named_betas(self.noise_schedule, self.diffusion_steps), timesteps)
        return Gaussian(betas, self.learn_sigma, self.sigma_small, self.predict_xstart)

    def _bound(self, out: Tensor, x_0: Tensor, x_t: Tensor, index_B: Tensor, active_BT: Tensor | None) -> Tensor:
        """Return the bound's term of a step in bits, (B,): a divergence, and for the first step a likelihood."""
        true = self.gaussian.posterior(x_0, x_t, index_B)
        told, _ = self.gaussian.step_back(out, x_t, index_B)
        first = per_item(index_B == 0, x_0)
        error = torch.where(first, -discrete_log_likelihood(x_0, told), divergence(true, told))
        return mean_per_item(error, active_BT) / math.log(2)

    def _index(self, t_B: Tensor) -> Tensor:
        """Return the places of timesteps among those that are trained, (B,) int64."""
        return torch.searchsorted(self._timesteps_on(t_B.device), t_B.long())

    def _timesteps_on(self, device: torch.device) -> Tensor:
        return torch.tensor(self.timesteps, device=device)
