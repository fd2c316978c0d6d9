"""Diffusers' schedulers give the same latents as the processes, where both mean the same.

They do not where diffusers' steps are others: its DDIM knows whole strides alone (here "ddimN"), and its DPM-Solver++ whole
timesteps alone (here steps that divide 999) and, by default, a last step to no noise at all, which Open-Sora leaves out.
"""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from opensora_models.diffusion.betas import named_betas
from opensora_models.diffusion.dpm_solver import NoiseSchedule, multistep
from opensora_models.diffusion.iddpm import IDDPM
from opensora_models.diffusion.process import ProcessSolver
from tests.parity.families.iddpm import CLIP, toy

SHAPE = (2, 4, 3, 4, 4)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


CAPTION = drawn(1, SHAPE[0], 1, 3, 5)


def ours(process: IDDPM, steps: int, solver: ProcessSolver) -> Tensor:
    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        out = toy(x, t_B, CAPTION)
        return out if process.learn_sigma else out[:, : x.shape[1]]

    return process.sample(
        predict, drawn(2), CLIP, steps=steps, solver=solver, draw=lambda step, purpose: drawn(1000 + step)
    )


def theirs(scheduler: DDIMScheduler | DPMSolverMultistepScheduler, **options: float) -> Tensor:
    x = drawn(2)
    for step, time in enumerate(scheduler.timesteps.tolist()):
        noise = {"variance_noise": drawn(1000 + step)} if options else {}
        out = toy(x, torch.full((len(x),), float(time)), CAPTION)[:, : x.shape[1]]
        x = scheduler.step(out, time, x, **options, **noise).prev_sample
    return x


@pytest.mark.parametrize("variance", ["learned_range", "fixed_small", "fixed_large"])
@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_ddpm(variance: str, beta_schedule: str, prediction: str) -> None:
    clip = beta_schedule != "linear"  # the cosine's first step would divide rounding errors by next to nothing
    process = IDDPM(
        noise_schedule=beta_schedule,
        learn_sigma=variance == "learned_range",
        sigma_small=variance == "fixed_small",
        predict_xstart=prediction == "sample",
        clip_denoised=clip,
    )
    scheduler = DDPMScheduler(
        beta_schedule=beta_schedule, variance_type=variance, clip_sample=clip, prediction_type=prediction
    )
    scheduler.set_timesteps(timesteps=[999 - 111 * step for step in range(10)])
    x = drawn(2)
    for step, time in enumerate(scheduler.timesteps.tolist()):
        out = toy(x, torch.full((len(x),), float(time)), CAPTION)
        generator = torch.Generator().manual_seed(1000 + step)
        out = out if process.learn_sigma else out[:, : x.shape[1]]
        x = scheduler.step(out, time, x, generator=generator).prev_sample
    torch.testing.assert_close(ours(process, len(scheduler.timesteps), "ddpm"), x, **CLOSE)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("steps", [10, 25])
def test_ddim(steps: int, eta: float) -> None:
    process = IDDPM(timestep_respacing=f"ddim{steps}", ddim_eta=eta, learn_sigma=False)
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(ours(process, steps, "ddim"), theirs(scheduler, eta=eta), **CLOSE)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with NumPy 2
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [9, 27])
def test_dpm_solver(steps: int, order: int) -> None:
    schedule = NoiseSchedule(named_betas("linear", 1000))
    scheduler = DPMSolverMultistepScheduler(solver_order=order, final_sigmas_type="sigma_min")
    scheduler.set_timesteps(steps)

    def data(x: Tensor, time: float, step: int) -> Tensor:
        t = torch.tensor(time)
        noise = toy(x, torch.full((len(x),), 1000 * time - 1), CAPTION)[:, : x.shape[1]]
        return (x - schedule.sigma(t).item() * noise) / schedule.log_alpha(t).exp().item()

    want = theirs(scheduler)
    torch.testing.assert_close(multistep(data, drawn(2), schedule, schedule.evenly(steps), order), want, **CLOSE)
    if order == 2:
        torch.testing.assert_close(ours(IDDPM(), steps, "dpmpp_2m"), want, **CLOSE)
