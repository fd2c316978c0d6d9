"""Visual conditions, loss, text dropout, EMA, learning rates and one whole training step."""

import random
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import learning_rate
from opensora_models.build import build_denoiser
from opensora_models.diffusion import condition, rectified_flow
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids
from schemas.denoiser import MMDiTConfig
from tests.parity.case import Case, build_config

Checks = Iterator[tuple[str, object, object]]
TIME_STRIDE = 4


def checks(case: Case) -> Checks:
    match case.name:
        case name if name.startswith("visual_condition"):
            yield from visual_condition(case)
        case name if name.startswith("loss_dropout"):
            yield from loss_dropout(case)
        case name if name.startswith("ema_lr"):
            yield from ema(case)
            yield from learning_rates(case)
        case _:
            yield from train_step(case)


class FakeAutoencoder:
    """The mean pooling that the cases were recorded with; `rows` collects the frame numbers of every encoded clip."""

    def __init__(self, *, causal: bool, channels: int = 4) -> None:
        self.causal = causal
        self.channels = channels
        self.rows: list[list[int]] = []

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        self.rows += [[round(number) for number in row] for row in x_BCTHW[:, 0, :, 0, 0].tolist()]
        pooled = F.avg_pool3d(x_BCTHW, (1, 2, 2))
        frames = pooled.shape[2]
        starts = [0, *range(1, frames, TIME_STRIDE)] if self.causal else list(range(0, frames, TIME_STRIDE))
        groups = [pooled[:, :, start:stop] for start, stop in zip(starts, [*starts[1:], frames], strict=True)]
        z_BCTHW = torch.stack([group.mean(dim=2) for group in groups], dim=2)
        return torch.cat([z_BCTHW, z_BCTHW.mean(dim=1, keepdim=True)], dim=1)[:, : self.channels]


def visual_condition(case: Case) -> Checks:
    calls = case.json("calls")
    for key in sorted({name.split(".", 1)[1] for name in case.outputs}):
        kind, clip, *rest = key.split(".")
        video = case.inputs[f"x.{kind}.{clip}"]
        names = [rest[0] if rest else "t2v"] * len(video)
        ae = FakeAutoencoder(causal=kind == "causal")
        x_0, cond = condition.training_condition(
            video, names, ae.encode, time_stride=TIME_STRIDE, causal=ae.causal, pad="pad" in rest
        )
        yield f"x_0.{key}", x_0, case.outputs[f"x_0.{key}"]
        yield f"cond.{key}", cond, case.outputs[f"cond.{key}"]
        yield f"mask.{key}", cond[:, :1], case.outputs[f"cond.{key}"][:, :1]
        yield f"calls.{key}", sorted(ae.rows), sorted(row for call in calls[key] for row in call)
    yield from picks(case)


def picks(case: Case) -> Checks:
    for i, row in enumerate(case.json("picks")):
        causal, frames = row["causal"], row["frames"]
        latent_frames = (frames - 1) // TIME_STRIDE + 1
        weights = dict(row["condition_config"])
        left = condition.applicable(weights, latent_frames, time_stride=TIME_STRIDE)
        yield f"picks.{i}.left", left, row["config_after_call"]
        draw = random.Random(row["python_random_seed"])
        uniform_B = torch.tensor([draw.random() for _ in range(row["batch"])], dtype=torch.float64)
        picked = condition.pick_conditions(weights, uniform_B, latent_frames, time_stride=TIME_STRIDE)
        yield f"picks.{i}.untouched", weights, row["condition_config"]
        yield f"picks.{i}.picked", list(picked), row["picked"]
        mask = condition.condition_mask(picked, latent_frames, time_stride=TIME_STRIDE, causal=causal)
        yield f"picks.{i}.mask", mask.int().tolist(), row["mask_by_latent_frame"]


def loss_dropout(case: Case) -> Checks:
    pred, target, masks_BTHW = (case.inputs[name] for name in ("model_pred", "v_t", "masks"))
    given_BT = masks_BTHW[:, :, 0, 0]
    yield "loss.no_mask", rectified_flow.flow_loss(pred, target), case.outputs["loss.no_mask"]
    yield "loss.masks", rectified_flow.flow_loss(pred, target, given_BT), case.outputs["loss.masks"]
    for i, pattern in enumerate(case.info["mask_patterns"]):
        item = slice(i, i + 1)
        loss = rectified_flow.flow_loss(pred[item], target[item], given_BT[item])
        yield f"loss.item_{pattern}", loss, case.outputs[f"loss.item_{pattern}"]
    for name in (name for name in case.outputs if name.startswith("dropout.")):
        what, probability = name.removeprefix("dropout.").split("_p")
        text, null, uniform = (case.inputs[f"dropout.{key}"] for key in (what, f"null_{what}", f"rand_{what}"))
        yield name, rectified_flow.drop_text(text, null, uniform, float(probability)), case.outputs[name]


class NamedParameters(nn.Module):
    """A module whose parameters are those of the case, `frozen` not trained."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            *path, leaf = name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in dict(owner.named_children()):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(leaf, nn.Parameter(tensor.clone(), requires_grad=leaf != "frozen"))


def ema(case: Case) -> Checks:
    def stage(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): t for key, t in case.inputs.items() if key.startswith(f"{name}.")}

    model = NamedParameters(stage("init"))
    average = Ema(model, case.info["ema_decay"])
    for update in range(sum(key.endswith(".pos_embed") for key in case.outputs)):
        model.load_state_dict(stage(f"step{update}"))
        average.update(model)
        for name, tensor in average.state_dict().items():
            yield f"ema_after{update}.{name}", tensor.clone(), case.outputs[f"ema_after{update}.{name}"]


def learning_rates(case: Case) -> Checks:
    for i, row in enumerate(case.json("lr")):
        if row.get("returns_none"):  # upstream: no warm-up, no scheduler. Here: the rate stays where it is
            rates = [learning_rate(step, lr=1e-3, warmup_steps=0) for step in range(13)]
            yield f"lr.{i}", rates, [1e-3] * 13
            continue
        made = row.get("create_lr_scheduler", {})
        end = made["num_steps_per_epoch"] * made["epochs"] + 1 if made.get("use_cosine_scheduler") else None
        for step, want in enumerate(row["lr_before_step_i"][:end]):  # upstream's cosine rises again after its end
            yield f"lr.{i}.{step}", rate(row, step), want


def rate(row: dict, step: int) -> float:
    """The rate of one update as the row's scheduler sets it."""
    if "create_lr_scheduler" in row:
        made = row["create_lr_scheduler"]
        return learning_rate(
            step,
            lr=row["base_lr"],
            warmup_steps=made["warmup_steps"],
            schedule="cosine" if made.get("use_cosine_scheduler") else "constant",
            max_steps=made["num_steps_per_epoch"] * made["epochs"],
        )
    made, base = row["LinearWarmupLR"], row["base_lr"]
    if (changed := row.get("set_lr_before_step_2")) and step >= 2:
        # upstream sets the group's rate at once, for update 2, and the scheduler follows from the next update on
        if step == 2:
            return float(changed["lr"])
        return learning_rate(
            step, lr=changed["lr"], warmup_steps=made["warmup_steps"], initial_lr=changed["initial_lr"]
        )
    return learning_rate(step, lr=base, warmup_steps=made["warmup_steps"], initial_lr=made["initial_lr"])


def train_step(case: Case) -> Checks:
    info, inputs, outputs = case.info, case.inputs, case.outputs
    config = build_config(MMDiTConfig, info["ctor"])
    patch, sigma_min, batch = config.patch_size, info["sigma_min"], len(inputs["video"])
    frames, height, width = info["latent_thw"]
    causal = "uncausal" not in case.name
    ae = FakeAutoencoder(causal=causal, channels=config.in_channels // patch**2)
    x_0_BCTHW, cond_BCTHW = condition.training_condition(
        inputs["video"], info["picked_conditions"], ae.encode, time_stride=TIME_STRIDE, causal=causal
    )
    t_B = rectified_flow.training_times(
        inputs["normal_t"], latent_frames=frames, height=height, width=width, patch_size=patch
    )
    yield "inp.timesteps", t_B, outputs["inp.timesteps"]
    # Where upstream counts the tokens wrongly (patch not 2), the rest is checked at the times it recorded.
    t_B = t_B if patch == 2 else outputs["inp.timesteps"]
    x_0 = pack(x_0_BCTHW, patch)
    text = inputs["txt"]
    null = rectified_flow.fit_null_tokens(inputs["null_txt"], text.shape[1])
    given = {
        "img": rectified_flow.add_noise(x_0, inputs["x_1"], t_B, sigma_min),
        "img_ids": image_ids(frames, height, width, patch, batch=batch),
        "txt": rectified_flow.drop_text(text, null, inputs["rand_txt"], info["dropout_ratio"]),
        "txt_ids": text_ids(text.shape[1], batch=batch),
        "y_vec": rectified_flow.drop_text(inputs["vec"], inputs["null_vec"], inputs["rand_vec"], info["dropout_ratio"]),
        "cond": pack(cond_BCTHW, patch),
        "guidance": torch.full((batch,), float(info["guidance"])),
    }
    v_t = rectified_flow.velocity_target(x_0, inputs["x_1"], sigma_min)
    yield "x_0", x_0, outputs["x_0"]
    yield "v_t", v_t, outputs["v_t"]
    for name, tensor in given.items():
        yield f"inp.{name}", tensor, outputs[f"inp.{name}"]
    yield from loss_and_gradients(case, config, given, t_B, v_t)


def loss_and_gradients(case: Case, config: MMDiTConfig, given: dict[str, Tensor], t_B: Tensor, v_t: Tensor) -> Checks:
    model = build_denoiser(config)
    model.load_state_dict(case.weights(), strict=True)
    pred = model(
        img_BND=given["img"],
        img_ids_BN3=given["img_ids"],
        txt_BLD=given["txt"],
        txt_ids_BL3=given["txt_ids"],
        timesteps_B=t_B,
        y_vec_BD=given["y_vec"],
        cond_BND=given["cond"] if config.cond_embed else None,
        guidance_B=given["guidance"] if config.guidance_embed else None,
    )
    loss = rectified_flow.flow_loss(pred, v_t)
    yield "loss", loss, case.outputs["loss"]
    loss.backward()
    norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    norms["total"] = torch.stack(list(norms.values())).norm()
    for name in (name for name in case.outputs if name.startswith("grad_norm.")):
        yield name, norms[name.removeprefix("grad_norm.")], case.outputs[name]
