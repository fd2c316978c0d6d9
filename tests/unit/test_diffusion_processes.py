"""Every diffusion process: what holds for all of them, and what their recorded numbers do not show."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from opensora_cli.sampling.denoise import denoise
from opensora_models.diffusion.betas import named_betas, space_timesteps, spaced_betas
from opensora_models.diffusion.build import build_process
from opensora_models.diffusion.classifier_free import deviation_fixed, guided, image_scales
from opensora_models.diffusion.dpm_solver import NoiseSchedule
from opensora_models.diffusion.gaussian import Gaussian
from opensora_models.diffusion.guidance import GuidanceScales
from opensora_models.diffusion.iddpm import IDDPM
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack
from opensora_models.diffusion.process import ClipSize, Process, ProcessSolver
from opensora_models.diffusion.rectified_flow import RectifiedFlow
from opensora_models.diffusion.schedule import get_schedule
from opensora_models.diffusion.timestep_flow import TimestepFlow
from schemas.diffusion import DiffusionConfig, IDDPMConfig, TimestepFlowConfig
from tests.unit.sampling_models import denoiser, text

CLIP = ClipSize(frames=51, height=360, width=640, latent_frames=15, tokens_per_frame=920)
SHAPE = (2, 4, 3, 2, 2)
PROCESSES = {
    "rectified": RectifiedFlow(),
    "v1.2": TimestepFlow(use_timestep_transform=True, sample_method="logit-normal"),
    "v1.3": TimestepFlow(use_timestep_transform=True, transform="v1.3"),
    "discrete": TimestepFlow(use_discrete_timesteps=True),
    "iddpm": IDDPM(),
    "x_start": IDDPM(predict_xstart=True, noise_schedule="squaredcos_cap_v2"),
    "fixed": IDDPM(learn_sigma=False),
    "speed": IDDPM(speed=True),
    "respaced": IDDPM(timestep_respacing="20"),
}
WAYS = [(name, solver) for name, process in PROCESSES.items() for solver in process.solvers]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def draw(step: int, purpose: str) -> Tensor:
    return drawn(100 * step + len(purpose))


def told(process: Process, x_0: Tensor, x: Tensor, t_B: Tensor) -> Tensor:
    """The output of a model that knows the data."""
    t = t_B.view(-1, 1, 1, 1, 1)
    if isinstance(process, IDDPM):
        if process.predict_xstart:
            out = x_0
        else:
            log_alpha = NoiseSchedule(named_betas(process.noise_schedule, 1000)).log_alpha((t + 1) / 1000)
            out = ((x - log_alpha.exp() * x_0) / (-(2 * log_alpha).expm1()).sqrt()).float()
        return torch.cat([out, torch.zeros_like(out)], dim=1) if process.learn_sigma else out
    share = t / process.noise_time
    velocity = (x - x_0) / share
    return velocity if isinstance(process, RectifiedFlow) else torch.cat([-velocity, velocity], dim=1)


@pytest.mark.parametrize(("name", "solver"), WAYS)
def test_a_model_that_knows_the_data_leads_to_it(name: str, solver: ProcessSolver) -> None:
    process, x_0 = PROCESSES[name], drawn(1)
    if name == "rectified":
        process = replace(process, sigma_min=0.0)
    seen: list[tuple[int, int]] = []
    out = process.sample(
        lambda x, t_B, active_BT, step: told(process, x_0, x, t_B),
        drawn(2),
        CLIP,
        steps=20,
        solver=solver,
        draw=draw,
        on_step=lambda step, steps: seen.append((step, steps)),
    )
    # A diffusion's DPM-Solver++ stops at the first timestep, where a hundredth of the noise is left.
    close = 0.05 if solver == "dpmpp_2m" and isinstance(process, IDDPM) else 1e-3
    assert (out - x_0).abs().max() < close
    assert seen == [(step, 20) for step in range(1, 21)]


@pytest.mark.parametrize("name", PROCESSES)
def test_times_are_drawn_between_data_and_noise(name: str) -> None:
    process = PROCESSES[name]
    first, second = (process.draw_times(torch.Generator().manual_seed(3), 64, CLIP) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= process.noise_time
    assert len(first.unique()) > 10


@pytest.mark.parametrize(("name", "tokens"), [*((name, False) for name in PROCESSES), ("rectified", True)])
def test_frames_that_are_given_neither_move_nor_count(name: str, tokens: bool) -> None:
    process, noise, x_0 = PROCESSES[name], drawn(4), drawn(5)
    active = torch.tensor([[0, 1, 1], [0, 0, 0]])
    t_B = process.draw_times(torch.Generator().manual_seed(6), 2, CLIP)
    x_t = process.add_noise(x_0, noise, t_B, active)
    first = process.add_noise(x_0, noise, torch.zeros(2))
    assert torch.equal(x_t[0, :, 0], first[0, :, 0])
    assert torch.equal(x_t[1], first[1])
    assert torch.equal(x_t[0, :, 1:], process.add_noise(x_0, noise, t_B)[0, :, 1:])
    if tokens:
        x_0, noise, x_t = (pack(latent, 2) for latent in (x_0, noise, x_t))
    out = (
        torch.zeros_like(x_t) if isinstance(process, RectifiedFlow) or name == "fixed" else torch.cat([x_t, x_t], dim=1)
    )
    loss = process.losses(out, x_0, x_t, noise, t_B, active)
    whole = process.losses(out[:1], x_0[:1], x_t[:1], noise[:1], t_B[:1], torch.ones(1, 3))
    torch.testing.assert_close(whole, process.losses(out[:1], x_0[:1], x_t[:1], noise[:1], t_B[:1]))
    assert loss[0] > 0
    assert loss[1] == 0
    assert not torch.allclose(loss[:1], whole)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_rectified_flow_is_the_denoise_loop_to_the_last_bit(solver: ProcessSolver) -> None:
    model, caption, noise = denoiser(), text(1, 10), drawn(7, 1, 4, 3, 4, 4)
    times = get_schedule(4, 4, 3)
    one = denoise(
        model, noise, caption, caption, times=times, scales=GuidanceScales(1.0), patch_size=2, solver=solver,
        condition_BCTHW=torch.zeros(1, 5, 3, 4, 4),
    )  # fmt: skip

    @torch.no_grad()
    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        return model.inner(
            img_BND=x,
            img_ids_BN3=image_ids(3, 4, 4, 2, batch=1),
            txt_BLD=caption["t5"],
            txt_ids_BL3=text_ids(caption["t5"].shape[1], batch=1),
            timesteps_B=t_B,
            y_vec_BD=caption["clip"],
            cond_BND=torch.zeros(1, 12, 20),
        )

    clip = ClipSize(frames=9, height=32, width=32, latent_frames=3, tokens_per_frame=4)
    two = RectifiedFlow().sample(predict, pack(noise, 2), clip, steps=4, solver=solver, draw=draw)
    assert torch.equal(unpack(two, 3, 4, 4, 2), one.latent)


@pytest.mark.parametrize("transform", ["v1.2", "v1.3"])
@pytest.mark.parametrize("frames", [1, 2, 4, 5, 16, 17])
def test_short_clips_have_times_of_their_own(transform: str, frames: int) -> None:
    """Upstream counts no latent frame for 2 to 16 frames (2 to 4 in v1.3), and its times are 0 and NaN."""
    process = TimestepFlow(use_timestep_transform=True, transform=transform)
    times = process.times(4, CLIP._replace(frames=frames))
    assert times[0] == pytest.approx(1000)
    assert all(times.diff() < 0)
    assert times[-1] > 100


def test_a_kept_frame_stays_and_an_edited_one_starts_late() -> None:
    start, asked = drawn(8), []

    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        asked.append(active_BT[0].tolist())
        return torch.cat([x, x], dim=1)

    mask = torch.tensor([[0.0, 0.5, 1.0]] * 2)
    out = TimestepFlow().sample(predict, start, CLIP, steps=4, solver="euler", draw=draw, mask_BT=mask)
    assert torch.equal(out[:, :, 0], start[:, :, 0])
    assert asked == [[False, False, True]] * 2 + [[False, True, True]] * 2
    # It joins at time 500 as half data, half noise, and then makes two steps of a quarter.
    torch.testing.assert_close(out[:, :, 1], (start + draw(2, "frames"))[:, :, 1] / 2 * 1.25**2)


@pytest.mark.parametrize(
    ("process", "asked", "message"),
    [
        (RectifiedFlow(), {"solver": "ddim"}, "solver ddim does not fit RectifiedFlow. Use euler or heun or dpmpp_2m"),
        (RectifiedFlow(), {"mask_BT": torch.ones(2, 3)}, "Leave the mask out"),
        (TimestepFlow(), {"solver": "heun", "mask_BT": torch.ones(2, 3)}, "heun does not know masks.*Use euler"),
        (IDDPM(), {"solver": "dpmpp_2m", "mask_BT": torch.ones(2, 3)}, "Use ddpm or ddim"),
        (IDDPM(timestep_respacing="ddim25"), {}, "num_steps = 4, but timestep_respacing = 'ddim25' has 25"),
    ],
)
def test_what_a_process_cannot_do(process: Process, asked: dict, message: str) -> None:
    options = {"steps": 4, "solver": process.solvers[0], "draw": draw} | asked
    with pytest.raises(ValueError, match=message):
        process.sample(lambda x, *_: x, drawn(9), CLIP, **options)


@pytest.mark.parametrize("spacing", ["ddim600", "3,500", "1001"])
def test_spacings_that_do_not_exist(spacing: str) -> None:
    with pytest.raises(ValueError, match=r"Take 1 to|Give a count"):
        space_timesteps(999, spacing)


@pytest.mark.parametrize("spacing", ["ddim", "ddim0", "10,", "a", "0"])
def test_the_schema_refuses_what_is_no_spacing(spacing: str) -> None:
    with pytest.raises(ValidationError):
        IDDPMConfig(timestep_respacing=spacing)


@pytest.mark.parametrize("spacing", ["7", "ddim50", "10,15,20", "1"])
def test_a_respaced_diffusion_has_the_same_noise_at_its_timesteps(spacing: str) -> None:
    betas, timesteps = named_betas("linear", 1000), space_timesteps(1000, spacing)
    spaced = Gaussian(spaced_betas(betas, timesteps))
    torch.testing.assert_close(spaced.alphas_cumprod, Gaussian(betas).alphas_cumprod[list(timesteps)])
    assert spaced.posterior_log_variance_clipped.isfinite().all()


def test_times_and_noise_are_inverse() -> None:
    schedule, t = (
        NoiseSchedule(named_betas("linear", 1000)),
        torch.tensor([0.0015, 0.2, 0.77, 1.0], dtype=torch.float64),
    )
    torch.testing.assert_close(schedule.time_of(schedule.half_log_snr(t)), t)


def test_dpm_solver_leaves_out_the_blind_end_of_a_cosine() -> None:
    schedule = NoiseSchedule(named_betas("squaredcos_cap_v2", 1000))
    assert 0.99 < schedule.evenly(4)[0] < 1
    assert NoiseSchedule(named_betas("linear", 1000)).evenly(4)[0] == 1


def test_speed_draws_where_the_noise_changes_and_weighs_late_steps_more() -> None:
    speed, plain = IDDPM(speed=True), IDDPM()
    t_B = speed.draw_times(torch.Generator().manual_seed(0), 1000, CLIP)
    assert (t_B < 700).float().mean() > 0.8
    out, x_0, noise = drawn(11, 2, 8, 3, 2, 2), drawn(12), drawn(13)
    times = torch.tensor([10.0, 900.0])
    x_t = plain.add_noise(x_0, noise, times)
    ratio = speed.loss_terms(out, x_0, x_t, noise, times)["mse"] / plain.loss_terms(out, x_0, x_t, noise, times)["mse"]
    assert ratio[0] < 0.01
    assert ratio[1] > 0.99


def test_the_bound_trains_the_variance_alone() -> None:
    process, out = IDDPM(), drawn(14, 2, 8, 3, 2, 2).requires_grad_()
    x_0, noise, times = drawn(15), drawn(16), torch.tensor([0.0, 500.0])
    x_t = process.add_noise(x_0, noise, times)
    process.loss_terms(out, x_0, x_t, noise, times)["vb"].sum().backward()
    assert out.grad[:, :4].abs().max() == 0
    assert (out.grad[:, 4:].abs().flatten(1).amax(dim=1) > 0).all()


def test_guidance_changes_the_channels_it_is_told() -> None:
    conditional, unconditional = drawn(17, 1, 8, 1, 2, 2), drawn(18, 1, 8, 1, 2, 2)
    assert torch.equal(guided(conditional, unconditional, 3.0)[:, 4:], conditional[:, 4:])
    three = guided(conditional, unconditional, 3.0, 3)
    assert torch.equal(three[:, 3:], conditional[:, 3:])
    torch.testing.assert_close(three[:, :3], (3 * conditional - 2 * unconditional)[:, :3])
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(deviation_fixed(conditional, conditional), conditional)
    assert deviation_fixed(5 * conditional, conditional).std() < 5 * 0.45 * conditional.std()


def test_image_scales_grow_over_the_frames_and_shrink_over_the_steps() -> None:
    first, last = (image_scales(3.0, 1.5, step, 6, 4).tolist() for step in (0, 5))
    assert first == pytest.approx([1.5, 2.0, 2.5, 3.0])
    assert last == pytest.approx([1.5] * 4)
    assert image_scales(1.0, 1.5, 2, 6, 4).tolist() == [1.0] * 4


def test_configs_build_their_process() -> None:
    assert build_process(DiffusionConfig(sigma_min=0.1)) == RectifiedFlow(sigma_min=0.1)
    assert build_process(TimestepFlowConfig(transform="v1.3", loc=0.5)) == TimestepFlow(transform="v1.3", loc=0.5)
    assert build_process(IDDPMConfig(cfg_channel=3, use_kl=True)) == IDDPM(use_kl=True)
