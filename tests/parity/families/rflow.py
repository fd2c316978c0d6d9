"""The rectified flow of Open-Sora 1.2 and 1.3: times, noise, losses and whole sampling loops."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from opensora_models.diffusion.classifier_free import deviation_fixed, guided, guided_by_image, image_scales
from opensora_models.diffusion.guidance import FIRST_OSCILLATION, oscillate
from opensora_models.diffusion.process import ClipSize
from opensora_models.diffusion.timestep_flow import TimestepFlow, latent_frames_of, shift_ratio, shift_timesteps
from opensora_models.stdit3.model import STDiT3
from schemas.denoiser.stdit3 import STDiT3Config
from schemas.diffusion import TimestepFlowConfig
from tests.parity.case import Case, build_config
from tests.parity.latents import NOT_CONFIGURED, load_published

Checks = Iterator[tuple[str, object, object]]
Model = Callable[..., Tensor]
FIELDS = TimestepFlowConfig.model_fields.keys() - {"type"}


def checks(case: Case) -> Checks:
    process = flow_of(case)
    match case.name.split("_"):
        case ["add", *_]:
            x, noise = case.inputs["x0"], case.inputs["noise"]
            yield "out", process.add_noise(x, noise, case.inputs["timesteps"]), case.outputs["out"]
        case ["timestep", *_]:
            yield "new_timestep", transformed(case), case.outputs["new_timestep"]
        case ["draw", *_]:
            yield from drawn(case, process)
        case ["loss", *_]:
            yield from loss(case, process)
        case ["v1", *_]:
            yield from sampled_v1_3(case, process)
        case _:
            yield from sampled(case, process)


def flow_of(case: Case) -> TimestepFlow:
    keys = {key: value for key, value in case.info["ctor"].items() if key in FIELDS}
    version = "v1.3" if "opensora/v1.3" in case.info["upstream"] else "v1.2"
    return TimestepFlow(**TimestepFlowConfig(**keys, transform=version).model_dump(exclude={"type"}))


def clip_of(case: Case) -> ClipSize:
    """The size that all items of the case share."""
    sizes = [case.inputs.get(name, torch.ones(1)).unique() for name in ("num_frames", "height", "width")]
    return ClipSize(*(int(size.item()) for size in sizes), latent_frames=0, tokens_per_frame=0)


def toy(x: Tensor, t_B: Tensor, y: Tensor, x_mask: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """The toy model of the cases: latents and as many channels of a variance that nobody uses."""
    b = y.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1, 1)
    a = 0.7 * torch.tanh(x) * (0.5 + t_B.view(-1, 1, 1, 1, 1) / 1000) + 0.3 * b
    if x_mask is not None:
        a = a + 0.1 * x_mask.float()[:, None, :, None, None]
    if shift is not None:
        a = a + shift
    return torch.cat([a, 0.2 * torch.cos(x)], dim=1)


def transformed(case: Case) -> Tensor:
    """One row at a time: its own size."""
    columns = (case.inputs[name].tolist() for name in ("height", "width", "num_frames"))
    rows = zip(case.inputs["timestep"], *columns, strict=True)
    ctor = case.info["ctor"]
    return torch.stack(
        [
            shift_timesteps(
                t,
                shift_ratio(height, width, latent_frames_of(int(frames), "v1.2"), ctor["scale"]),
                ctor["num_timesteps"],
            )
            for t, height, width, frames in rows
        ]
    )


def drawn(case: Case, process: TimestepFlow) -> Checks:
    seed = int(case.info["call"].split("manual_seed(")[1].split(")")[0])
    generator, x_0 = torch.Generator().manual_seed(seed), case.inputs["x_start"]
    t_B = process.draw_times(generator, len(x_0), clip_of(case))
    noise = torch.randn(x_0.shape, generator=generator)
    x_t = process.add_noise(x_0, noise, t_B)
    out = torch.cat([x_t, x_t], dim=1)
    yield "t", t_B, case.outputs["t"]
    yield "noise", noise, case.outputs["noise"]
    yield "x_t", x_t, case.outputs["x_t"]
    yield "loss", process.losses(out, x_0, x_t, noise, t_B), case.outputs["loss"]


def loss(case: Case, process: TimestepFlow) -> Checks:
    x_0, noise, t_B = (case.inputs[name] for name in ("x_start", "noise", "t"))
    mask, weights = case.inputs.get("mask"), case.inputs.get("weights")
    x_t = process.add_noise(x_0, noise, t_B, mask)
    weights_B = None if weights is None else weights[t_B.long()]
    yield "x_t", x_t, case.outputs["x_t"]
    out = toy(x_t, t_B, case.inputs["y"])
    yield "loss", process.losses(out, x_0, x_t, noise, t_B, mask, weights_B), case.outputs["loss"]


def sampled(case: Case, process: TimestepFlow) -> Checks:
    model, ctor, inputs = model_of(case), case.info["ctor"], case.inputs
    given = case.info["call"].split("guidance_scale=")[1].split(")")[0]
    scale = ctor.get("cfg_scale", 4.0) if given == "None" else float(given)
    times, masks = [], []

    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        times.append(t_B)
        masks.append(active_BT)
        y = torch.cat([inputs["y"], inputs["y_null"]])
        both = None if active_BT is None else active_BT.repeat(2, 1)
        return guided(*model(x.repeat(2, 1, 1, 1, 1), t_B.repeat(2), y, both).chunk(2), scale)

    out = process.sample(
        predict,
        inputs["z"],
        clip_of(case),
        steps=ctor["num_sampling_steps"],
        solver="euler",
        mask_BT=inputs.get("mask"),
        draw=lambda step, purpose: inputs["noise"][step],
    )
    yield "out", out, case.outputs["out"]
    yield "timesteps", torch.stack(times), case.outputs["timesteps"]
    if "x_mask" in case.outputs:
        yield "x_mask", torch.stack([mask.repeat(2, 1) for mask in masks]).long(), case.outputs["x_mask"]


def model_of(case: Case) -> Model:
    """The toy, or STDiT3 with the case's weights."""
    if case.info.get("model_ctor") is None:
        return toy
    config = build_config(STDiT3Config, case.info["model_ctor"], ignore=NOT_CONFIGURED)
    model, inputs = load_published(STDiT3(config), case), case.inputs

    @torch.no_grad()
    def stdit3(x: Tensor, t_B: Tensor, y: Tensor, x_mask: Tensor | None = None) -> Tensor:
        rows = len(x) // len(inputs["fps"])
        sizes = {f"{name}_B": inputs[name].repeat(rows) for name in ("height", "width", "fps")}
        mask = inputs.get("text_mask")
        mask_BL = None if mask is None else mask.bool().repeat(len(x) // len(mask), 1)
        return model(x, t_B, text_BLD=y[:, 0], text_mask_BL=mask_BL, x_mask_BT=x_mask, **sizes)

    return stdit3


def sampled_v1_3(case: Case, process: TimestepFlow) -> Checks:
    call, inputs = case.info["call"], case.inputs
    ctor = {"cfg_scale": 4.0, "force_num": FIRST_OSCILLATION, "initial_image_scale": 1.0} | case.info["ctor"]
    steps, first, frames = ctor["num_sampling_steps"], ctor["force_num"], inputs["z"].shape[2]
    text_scale, image_scale = (
        float(call.split(f" {name}=")[1].split(",")[0]) if f" {name}=" in call else ctor["cfg_scale"]
        for name in ("guidance_scale", "image_cfg_scale")
    )
    text_oscillates = "_for_text=True" in call or ctor.get("use_oscillation_guidance", False)
    image_oscillates = "_for_image=True" in call
    shift = 0.2 * inputs["z_cond"] * inputs["z_cond_mask"] if "z_cond" in inputs else None
    times = []

    def predict(x: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        times.append(t_B)
        text = oscillate(text_scale, step, first) if text_oscillates else text_scale
        full, nothing = (toy(x, t_B, inputs[name]) for name in ("y", "y_null"))
        if shift is not None:
            full, image = (toy(x, t_B, inputs[name], shift=shift) for name in ("y", "y_null"))
            scale = oscillate(image_scale, step, first) if image_oscillates else image_scale
            scale_T = torch.full((frames,), scale)
            if ctor.get("scale_image_weight"):
                scale_T = image_scales(scale, ctor["initial_image_scale"], step, steps, frames)
            return guided_by_image(full, image, nothing, text, scale_T)
        out = guided(full, nothing, text)
        if ctor.get("use_flaw_fix"):
            channels = x.shape[1]
            return deviation_fixed(out[:, :channels], full[:, :channels])
        return out

    out = process.sample(
        predict,
        inputs["z"],
        clip_of(case),
        steps=steps,
        solver="euler",
        draw=lambda step, purpose: inputs["noise"][step],
    )
    yield "out", out, case.outputs["out"]
    yield "timesteps", torch.stack(times), case.outputs["timesteps"]
