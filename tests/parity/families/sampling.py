"""Functions of sampling, conditions from references, whole denoising runs, and prompts to pixels."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from opensora_cli.data.aspect import aspect_table, get_image_size
from opensora_cli.sampling.denoise import denoise, denoise_distilled
from opensora_cli.sampling.generate import Generator, generate
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.diffusion import condition, schedule
from opensora_models.diffusion.guidance import FIRST_OSCILLATION, GuidanceScales, oscillate
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack
from opensora_models.diffusion.noise import latent_noise, latent_side
from opensora_models.text.features import TextFeatures
from schemas.autoencoder import HunyuanVAEConfig
from schemas.denoiser import MMDiTConfig
from schemas.sampling import SamplingConfig
from tests.parity.case import Case, build_config

Checks = Iterator[tuple[str, object, object]]
PIXELS_PER_TOKEN = 16


def checks(case: Case) -> Checks:
    match case.name:
        case name if name.startswith("functions"):
            yield from functions(case)
        case name if name.startswith("inference_condition"):
            yield from inference_condition(case)
        case name if name.startswith("denoise_distilled"):
            yield from distilled(case)
        case name if name.startswith("end_to_end"):
            yield from end_to_end(case)
        case _:
            yield from guided(case)


def functions(case: Case) -> Checks:
    yield from tables(case)
    yield from tensor_functions(case)
    yield from noise(case)
    yield from prepared(case)


def tables(case: Case) -> Checks:
    for i, row in enumerate(case.json("schedule")):
        args = dict(row["args"])
        got = schedule.get_schedule(args.pop("num_steps"), args.pop("image_seq_len"), args.pop("num_frames"), **args)
        yield f"schedule.{i}", got.tolist(), row["timesteps"]
    for i, row in enumerate(case.json("res_lin")):
        yield f"res_lin.{i}", schedule.linear_shift(row["x"], **row["ctor"]), row["y"]
    for i, row in enumerate(case.json("oscillation")):
        first = FIRST_OSCILLATION if row["force_num"] == "default" else row["force_num"]
        got = [oscillate(row["guidance_scale"], step, first) for step in range(len(row["values"]))]
        yield f"oscillation.{i}", got, row["values"]
    for i, row in enumerate(case.json("aspect")):
        compression = row["env_AE_SPATIAL_COMPRESSION"] or PIXELS_PER_TOKEN
        table = aspect_table(row["resolution"], compression=compression, training=row["training"])
        yield (
            f"aspect.{i}",
            [(name, *size) for name, size in table.items()],
            [(n, *s) for n, s in row["ratios"].items()],
        )
    for i, row in enumerate(case.json("sanitize")):
        yield f"sanitize.{i}", sanitized(row["kwargs"]), (row["height"], row["width"])


def sanitized(asked: dict) -> tuple[int, int]:
    """The size upstream makes of a request: the resolution's table, else whole tokens."""
    if asked.get("resolution"):
        return tuple(get_image_size(asked["resolution"], asked["aspect_ratio"]))
    return latent_side(asked["height"], 8, 2) * 8, latent_side(asked["width"], 8, 2) * 8


def tensor_functions(case: Case) -> Checks:
    for name, want in case.outputs.items():
        kind, _, argument = name.partition(".")
        if kind == "time_shift":
            alpha = float(argument.removeprefix("alpha_"))
            yield name, schedule.time_shift(alpha, case.inputs["time_shift.t"]), want
        elif kind == "pack":
            yield name, pack(case.inputs["pack.x"], int(argument.removeprefix("patch"))), want
        elif name == "unpack.patch2_of_pack":
            x = case.inputs["pack.x"]
            yield name, unpack(pack(x, 2), *x.shape[2:], 2), want
        elif kind == "unpack":
            height, width, frames = (int(part[1:]) for part in argument.split("_")[1:])
            sides = [2 * math.ceil(side / PIXELS_PER_TOKEN) for side in (height, width)]
            yield name, unpack(case.inputs["unpack.y"], frames, *sides, 2), want


def noise(case: Case) -> Checks:
    for i, row in enumerate(case.info["noise"]):
        args = {"patch_size": 2, "channel": 16, **row["args"]}
        compression = int(row["env_AE_SPATIAL_COMPRESSION"] or PIXELS_PER_TOKEN)
        got = latent_noise(
            torch.Generator().manual_seed(args["seed"]),
            channels=args["channel"],
            latent_frames=args["num_frames"],
            height=args["height"],
            width=args["width"],
            spatial_stride=compression // args["patch_size"],
            patch_size=args["patch_size"],
            num_samples=args["num_samples"],
        )
        yield f"get_noise.{i}", got, case.outputs[f"get_noise.{i}"]


def prepared(case: Case) -> Checks:
    z, txt, vec = (case.inputs[f"prepare.{name}"] for name in ("z", "txt", "vec"))
    for key in sorted({name.rsplit(".", 1)[0] for name in case.outputs if name.startswith("prepare.")}):
        patch = int(key.removeprefix("prepare.patch"))
        one_row = patch == 1  # these were recorded with encoders that return a single row, used for all prompts
        got = {
            "img": pack(z, patch).expand(len(txt), -1, -1),
            "img_ids": image_ids(*z.shape[2:], patch, batch=len(txt)),
            "txt": txt[:1].expand_as(txt) if one_row else txt,
            "txt_ids": text_ids(txt.shape[1], batch=len(txt)),
            "y_vec": vec[:1].expand_as(vec) if one_row else vec,
        }
        for name, tensor in got.items():
            yield f"{key}.{name}", tensor, case.outputs[f"{key}.{name}"]


REFERENCES: dict[str, list[list[str] | None]] = {
    "t2v": [None, None],
    "i2v_head": [["ref_img0"], ["ref_img1"]],
    "i2v_tail": [["ref_img0"], ["ref_img1", "ref_img2"]],
    "i2v_loop": [["ref_img0", "ref_img1"], ["ref_img1", "ref_img2"]],
    "v2v_head": [["ref_vid"], ["ref_vid"]],
    "v2v_tail": [["ref_vid"], None],
    "v2v_head_easy": [None, ["ref_vid"]],
    "v2v_tail_easy": [["ref_vid"], ["ref_vid"]],
}


def inference_condition(case: Case) -> Checks:
    for key in sorted({name.rsplit(".", 1)[0] for name in case.outputs}):
        kind, causal = key.split(".causal")
        references = [None if names is None else [case.inputs[n] for n in names] for names in REFERENCES[kind]]
        got = condition.inference_condition(case.inputs["z"], kind, references, time_stride=4, causal=causal == "1")
        yield f"{key}.masks", got[:, :1, :, :1, :1], case.outputs[f"{key}.masks"]
        yield f"{key}.masks is constant", (got[:, :1] == got[:, :1, :, :1, :1]).all().item(), True
        yield f"{key}.masked_z", got[:, 1:], case.outputs[f"{key}.masked_z"]


def guided(case: Case) -> Checks:
    config = build_config(MMDiTConfig, case.info["ctor"])
    model = build_denoiser(config)
    model.load_state_dict(case.weights(), strict=True)
    z, batch = case.inputs["z"], len(case.inputs["z"])
    caption, negative = text_rows(case, 0, batch), text_rows(case, batch, 2 * batch)
    for name, run in case.info["runs"].items():
        frames, height, width = z.shape[2:]
        times = schedule.get_schedule(run["num_steps"], height * width // config.patch_size**2, frames)
        yield f"times.{name}", times.tolist(), run["timesteps"]
        cond = condition.inference_condition(
            z, run["cond_type"], run_references(case, run["cond_type"]), time_stride=4, causal=case.info["causal"]
        )
        done = denoise(
            model,
            z,
            caption,
            negative,
            times=times,
            scales=scales(run),
            patch_size=config.patch_size,
            condition_BCTHW=cond,
        )
        yield f"x.{name}", pack(done.latent, config.patch_size), case.outputs[f"x.{name}"]


def text_rows(case: Case, start: int, stop: int) -> TextFeatures:
    return TextFeatures({"t5": case.inputs["txt"][start:stop], "clip": case.inputs["y_vec"][start:stop]})


def scales(run: dict) -> GuidanceScales:
    return GuidanceScales(
        text=run["guidance"],
        image=run["guidance_img"],
        text_oscillates=run["text_osci"],
        image_oscillates=run["image_osci"],
        image_grows_over_frames=run["scale_temporal_osci"],
    )


def run_references(case: Case, kind: str) -> list[list[Tensor] | None]:
    ends = {"t2v": [], "i2v_head": ["head"], "i2v_tail": ["tail"], "i2v_loop": ["head", "tail"]}[kind]
    batch = len(case.inputs["z"])
    return [[case.inputs[f"ref{item}_{end}"] for end in ends] or None for item in range(batch)]


def distilled(case: Case) -> Checks:
    config = build_config(MMDiTConfig, case.info["ctor"])
    model = build_denoiser(config)
    model.load_state_dict(case.weights(), strict=True)
    z, patch = case.inputs["z"], config.patch_size
    for name, run in case.info["runs"].items():
        frames, height, width = z.shape[2:]
        tokens = height * width // patch**2
        times = schedule.get_schedule(len(run["timesteps"]) - 1, tokens, frames, shift_alpha=run["shift_alpha"])
        yield f"times.{name}", times.tolist(), run["timesteps"]
        caption = TextFeatures({"t5": case.inputs["txt"], "clip": case.inputs["y_vec"]})
        done = denoise_distilled(model, z, caption, times=times, guidance=run["guidance"], patch_size=patch)
        yield f"x.{name}", pack(done.latent, patch), case.outputs[f"x.{name}"]


def end_to_end(case: Case) -> Checks:
    model_config = build_config(MMDiTConfig, case.info["ctor"]["model"])
    ae_config = build_config(HunyuanVAEConfig, case.info["ctor"]["vae"])
    model, ae = build_denoiser(model_config), build_autoencoder(ae_config)
    model.load_state_dict(case.weights("mmdit"), strict=True)
    ae.load_state_dict(case.weights("hunyuan_vae"), strict=True)
    made = Generator(model, ae, model_config)
    for name, run in case.info["runs"].items():
        known = set(SamplingConfig.model_fields)
        option = {key: value for key, value in run["option"].items() if key in known}
        config = SamplingConfig(resolution=None, cond_type=run["cond_type"], **option)
        needed = condition.reference_count(run["cond_type"])
        references = [[case.inputs["ref_head"], case.inputs["ref_tail"]][:needed] or None]
        clips = generate(
            made, config, (config.height, config.width), [config.seed], prompt(case, "a_cat"),
            prompt(case, (run["neg"] or ["empty"])[0]), references,
        )  # fmt: skip
        yield f"video.{name}", clips.video, case.outputs[f"video.{name}"]


def prompt(case: Case, key: str) -> TextFeatures:
    return TextFeatures({"t5": case.inputs[f"t5.{key}"][None], "clip": case.inputs[f"clip.{key}"][None]})
