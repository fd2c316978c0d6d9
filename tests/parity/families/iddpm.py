"""Improved DDPM of Open-Sora 1.0 to 1.2: tables, one step, losses, and whole sampling loops."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from opensora_models.diffusion import speed
from opensora_models.diffusion.betas import space_timesteps
from opensora_models.diffusion.build import build_process
from opensora_models.diffusion.classifier_free import guided
from opensora_models.diffusion.gaussian import Gaussian
from opensora_models.diffusion.iddpm import IDDPM
from opensora_models.diffusion.process import ClipSize
from schemas.diffusion import IDDPMConfig
from tests.parity.case import Case, build_config

Checks = Iterator[tuple[str, object, object]]
CLIP = ClipSize(frames=1, height=1, width=1, latent_frames=1, tokens_per_frame=1)
SAMPLING_KEYS = ("num_sampling_steps", "timestep_respacing", "cfg_scale")


def checks(case: Case) -> Checks:
    if case.name.startswith("space_timesteps"):
        yield from spacings(case)
        return
    kind = case.name.split("_")[2]
    if kind == "buffers":
        yield from tables(case, process_of(case))
    elif kind == "speed":
        yield from speed_tables(case)
    elif kind == "pmv":
        yield from one_step(case, process_of(case).gaussian)
    elif kind == "q":
        yield from marginals(case, process_of(case).gaussian)
    elif kind == "loss":
        yield from loss(case, process_of(case))
    elif kind.startswith("ddim"):
        yield from ddim(case)
    else:
        yield from sampled(case)


def config_of(case: Case, **more: Any) -> IDDPMConfig:
    return build_config(IDDPMConfig, case.info["ctor"] | more, ignore=SAMPLING_KEYS)


def process_of(case: Case) -> IDDPM:
    """The process over the steps that upstream's constructor is told: sampling's, or else training's."""
    ctor = case.info["ctor"]
    spacing = ctor.get("num_sampling_steps") or ctor.get("timestep_respacing") or ""
    config = config_of(case)
    return build_process(
        IDDPMConfig(**config.model_dump(exclude={"timestep_respacing"}), timestep_respacing=str(spacing))
    )


def spacings(case: Case) -> Checks:
    for key, want in case.json("space_timesteps").items():
        steps, spacing = key.split("|")
        if spacing.startswith("["):
            spacing = ",".join(map(str, json.loads(spacing)))
        yield key, list(space_timesteps(int(steps), spacing)), want


def tables(case: Case, process: IDDPM) -> Checks:
    diffusion = process.gaussian
    kept = diffusion.alphas_cumprod
    derived = {
        "alphas_cumprod_next": torch.cat([kept[1:], kept.new_zeros(1)]),
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "timestep_map": torch.tensor(process.timesteps),
    }
    for name, want in case.outputs.items():
        yield name, derived[name] if name in derived else getattr(diffusion, name), want


def speed_tables(case: Case) -> Checks:
    kept = process_of(case).gaussian.alphas_cumprod
    yield "p", speed.step_probabilities(kept), case.outputs["p"]
    yield "weights", speed.step_weights(kept), case.outputs["weights"]
    yield "meaningful_steps", torch.tensor(speed.meaningful_steps(kept)), case.outputs["meaningful_steps"]


def one_step(case: Case, diffusion: Gaussian) -> Checks:
    inputs = case.inputs
    for name, want in case.outputs.items():
        way, _, value = name.rpartition(".")
        clip = way == "clip" if way else "clip_denoised=True" in case.info["call"]
        normal, x_0 = diffusion.step_back(inputs["model_output"], inputs["x"], inputs["t"], clip=clip)
        yield name, x_0 if value == "pred_xstart" else getattr(normal, value), want


def marginals(case: Case, diffusion: Gaussian) -> Checks:
    x_0, t = case.inputs["x_start"], case.inputs["t"]
    normals = {"q": diffusion.marginal(x_0, t), "post": diffusion.posterior(x_0, case.inputs["x_t"], t)}
    for name, want in case.outputs.items():
        which, _, value = name.partition("_")
        if value == "sample":
            yield name, diffusion.noised(x_0, t, case.inputs["noise"]), want
        else:
            yield name, getattr(normals[which], value).expand_as(x_0), want


def toy(x: Tensor, t_B: Tensor, y: Tensor, x_mask: Tensor | None = None) -> Tensor:
    """The toy model of the cases, whose first half looks like the noise in x."""
    b, s = y.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1, 1), t_B.view(-1, 1, 1, 1, 1) / 1000
    kept = torch.exp(-4.975 * s * s - 0.05 * s)
    e = (1 - kept * kept + 1e-4).sqrt() * ((0.9 + 0.05 * b) * x + 0.2 * torch.sin(2 * x) + 0.2 * b)
    if x_mask is not None:
        e = e + 0.1 * x_mask.float()[:, None, :, None, None]
    return torch.cat([e, 0.9 * torch.sin(2 * x)], dim=1)


def loss(case: Case, process: IDDPM) -> Checks:
    x_0, noise, index_B = (case.inputs[name] for name in ("x_start", "noise", "t"))
    t_B = torch.tensor(process.timesteps)[index_B].float()
    mask, weights = case.inputs.get("mask"), case.inputs.get("weights")
    x_t = process.add_noise(x_0, noise, t_B, mask)
    out = toy(x_t, t_B, case.inputs["y"])
    if not process.learn_sigma:
        out = out[:, : x_0.shape[1]]
    arguments = (out, x_0, x_t, noise, t_B, mask, None if weights is None else weights[index_B])
    terms = process.loss_terms(*arguments)
    for name, want in case.outputs.items():
        yield name, process.losses(*arguments) if name == "loss" else terms[name], want


def ddim(case: Case) -> Checks:
    inputs = case.inputs
    clip = "clip_denoised=True" in case.info["call"]
    process = build_process(config_of(case, ddim_eta=float(case.name.split("eta")[1]), clip_denoised=clip))
    out = process.sample(
        lambda x, t_B, active_BT, step: toy(x, t_B, inputs["y"]),
        inputs["z"],
        CLIP,
        steps=case.info["ctor"]["num_sampling_steps"],
        solver="ddim",
        draw=lambda step, purpose: inputs["noise"][step],
    )
    yield "out", out, case.outputs["out"]


def sampled(case: Case) -> Checks:
    inputs, config, rows = case.inputs, config_of(case), len(case.inputs["z"])
    scale = case.info["ctor"].get("cfg_scale", 4.0)
    channels = 3 if "opensora/v1.0" in case.info["upstream"] else config.cfg_channel
    times, masks = [], []

    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        times.append(t_B)
        masks.append(active_BT)
        outs = (toy(x, t_B, inputs[name], active_BT) for name in ("y", "y_null"))
        return guided(*outs, scale, channels)

    def draw(step: int, purpose: str) -> Tensor:
        """Upstream draws for both halves of its doubled batch; the first is the one that counts."""
        return inputs["noise_mask" if purpose == "frames" else "noise"][step][:rows]

    out = build_process(config).sample(
        predict,
        inputs["z"],
        CLIP,
        steps=case.info["ctor"]["num_sampling_steps"],
        solver="ddpm",
        mask_BT=inputs.get("mask"),
        draw=draw,
    )
    yield "out", out, case.outputs["out"]
    yield "timesteps", torch.stack(times), case.outputs["timesteps"]
    if "x_mask" in case.outputs:
        yield "x_mask", torch.stack([mask.repeat(2, 1) for mask in masks]).long(), case.outputs["x_mask"]
