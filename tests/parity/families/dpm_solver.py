"""DPM-Solver++ on the discrete diffusion of Open-Sora 1.x: its noise between the steps, and whole loops."""

from collections.abc import Iterator

import torch
from torch import Tensor

from opensora_models.diffusion.betas import named_betas
from opensora_models.diffusion.build import build_process
from opensora_models.diffusion.classifier_free import guided
from opensora_models.diffusion.dpm_solver import NoiseSchedule
from schemas.diffusion import IDDPMConfig
from tests.parity.case import Case
from tests.parity.families.iddpm import CLIP, toy

Checks = Iterator[tuple[str, object, object]]


def checks(case: Case) -> Checks:
    yield from (noise if case.name.startswith("noise") else sampled)(case)


def noise(case: Case) -> Checks:
    schedule, t = NoiseSchedule(named_betas("linear", 1000)), case.inputs["t"]
    got = {
        "log_mean_coeff": schedule.log_alpha(t),
        "alpha": schedule.log_alpha(t).exp(),
        "std": schedule.sigma(t),
        "lam": schedule.half_log_snr(t),
        "inverse_lambda": schedule.time_of(case.inputs.get("lam", case.outputs["lam"])),
    }
    for name, want in case.outputs.items():
        yield name, got[name], want


def sampled(case: Case) -> Checks:
    inputs, ctor, times = case.inputs, case.info["ctor"], []

    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        times.append(t_B)
        return guided(*(toy(x, t_B, inputs[name]) for name in ("y", "y_null")), ctor.get("cfg_scale", 4.0))

    out = build_process(IDDPMConfig()).sample(
        predict,
        inputs["z"],
        CLIP,
        steps=ctor.get("num_sampling_steps", 20),
        solver="dpmpp_2m",
        draw=lambda step, purpose: torch.zeros(()),
    )
    yield "out", out, case.outputs["out"]
    yield "timesteps", torch.stack(times), case.outputs["timesteps"]
