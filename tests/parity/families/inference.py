"""Prompts, masks, mask strategies, caption cleaning and warm-up of Open-Sora 1.x."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from opensora_cli.sampling import prompts_v1
from opensora_cli.sampling.outputs import plan_outputs
from opensora_cli.sampling.request import Sample
from opensora_cli.training.optim import learning_rate
from opensora_models.conditions import PixelSize, clip_conditions
from opensora_models.diffusion import mask_strategy
from opensora_models.diffusion.frame_masks import MaskDraws, frame_mask, pick_mask
from opensora_models.text.cleaning import clean
from schemas.frame_mask import OLD_NAMES, FrameMaskName, MaskRatios
from schemas.sampling import SamplingConfig
from tests.parity.case import Case

Checks = Iterator[tuple[str, object, object]]


def checks(case: Case) -> Checks:
    name = case.name.removeprefix("v1_2_")
    yield from next(check for start, check in CHECKS.items() if name.startswith(start))(case)


def masks(case: Case) -> Checks:
    """Upstream's own draws, in its order, as the numbers that the rule takes."""
    numbers = re.search(r"random.seed\((\d+)\).*?(\d+) calls of get_masks\(zeros\((\d+),1,(\d+)", case.info["call"])
    assert numbers
    seed, calls, batch, frames = (int(number) for number in numbers.groups())
    draws, generator = Random(seed), torch.Generator().manual_seed(seed)
    ratios = {OLD_NAMES.get(name, name): ratio for name, ratio in case.info["ctor"]["mask_ratios"].items()}
    named = MaskRatios(**{name: ratio for name, ratio in ratios.items() if name != "identity"}).ratios()
    got = []
    for _ in range(calls * batch):
        name = pick_mask(ratios, draws.random())
        assert name in {*named, "identity"}
        got.append(frame_mask(name, replayed(name, frames, draws, generator)))
    yield "masks", torch.stack(got).long(), case.outputs["masks"]


def replayed(name: FrameMaskName, frames: int, draws: Random, generator: torch.Generator) -> MaskDraws:
    if frames <= 1:
        return MaskDraws(0, 0, 0, torch.zeros(frames))
    size = place = share = 0.0
    count, each = 1, torch.zeros(frames)
    if name.startswith("quarter"):
        count = draws.randint(1, frames // 4)
        size = (count - 0.5) / (frames // 4)
    if name in ("quarter_random", "image_random"):
        place = (draws.randint(0, frames - count) + 0.5) / (frames - count + 1)
    if name == "interpolate":
        place = (draws.randint(0, 1) + 0.5) / 2
    if name == "random":
        share, each = draws.random(), torch.rand(frames, generator=generator)
    return MaskDraws(size, place, share, each)


def strategies(case: Case) -> Checks:
    call = re.search(r"mask_strategys=\[(.*?)\], loop_i=(\d+), align=(\w+)", case.info["call"])
    assert call
    texts = re.findall(r"'(.*?)'|(None)", call[1])
    references: list[list[Tensor]] = [[] for _ in texts]
    for name in sorted(name for name in case.inputs if name.startswith("ref.")):
        references[int(name.split(".")[1])].append(case.inputs[name])
    align = None if call[3] == "None" else int(call[3])
    before = case.inputs["z"].clone()
    z, share = mask_strategy.apply_strategies(
        case.inputs["z"], references, [text or None for text, _ in texts], int(call[2]), align
    )
    yield "z", z, case.outputs["z"]
    yield "mask", share, case.outputs["mask"]
    yield "unchanged", case.inputs["z"], before


def append_generated(case: Case) -> Checks:
    for number, row in enumerate(case.json("rows.json")):
        references = [[torch.zeros(1, 1, 1, 1)] * count for count in row["n_refs_before"]]
        longer, texts = mask_strategy.continue_loop(
            references,
            row["strategies_before"],
            torch.ones(len(references), 1, 1, 1, 1),
            row["loop_i"],
            row["condition_frame_length"],
            row["condition_frame_edit"],
        )
        yield f"{number}.references", [len(clips) for clips in longer], row["n_refs_after"]
        yield f"{number}.strategies", texts, row["strategies_after"]
        yield f"{number}.last", [clips[-1].mean().item() for clips in longer], [1.0] * len(longer)


def prompts(case: Case) -> Checks:
    for name, rows in case.json("prompts.json").items():
        for number, row in enumerate(rows):
            yield f"{name}.{number}", *PROMPTS[name](*row)


def scores(given: dict[str, object], texts: list[str], want: object) -> tuple[object, object]:
    return [prompts_v1.add_scores(text, given["aes"], given["flow"], given["camera_motion"]) for text in texts], want


def references(prompt: str, *want: list[str]) -> tuple[object, object]:
    parts = prompts_v1.split_references(prompt)
    return [parts.text, parts.reference, parts.strategy], [column[0] for column in want]


def file_name(given: dict[str, object], want: str) -> tuple[object, object]:
    sample = Sample(
        row=given.get("sample_idx", 0),
        number=given.get("k", 0),
        prompt=given.get("prompt", "a cat"),
        negative="",
        seed=0,
        references=(),
        config=SamplingConfig(names="prompt" if given.get("prompt_as_path") else "auto"),
        name=given.get("sample_name"),
    )
    return str(plan_outputs([sample], Path(given["save_dir"]))[0].media.with_suffix("")), want


def sizes(kind: str, given: dict[str, object], want: dict[str, list[object]]) -> tuple[object, object]:
    told = clip_conditions(
        PixelSize(given["num_frames"], *given["image_size"]), [given["fps"]] * len(want["ar"]), torch.device("cpu")
    )
    if kind == "PixArtMS":
        got = {"ar": told["aspect_B"][:, None], "hw": torch.stack([told["height_B"], told["width_B"]], dim=1)}
    else:
        names = {
            "height_B": "height",
            "width_B": "width",
            "num_frames_B": "num_frames",
            "aspect_B": "ar",
            "fps_B": "fps",
        }
        got = {names[name]: tensor for name, tensor in told.items()}
    return {name: tensor.tolist() for name, tensor in got.items()}, want


PROMPTS: dict[str, Callable[..., tuple[object, object]]] = {
    "append_score_to_prompts": scores,
    "split_prompt": lambda prompt, *want: (list(prompts_v1.split_loops(prompt)), list(want)),
    "extract_prompts_loop": lambda prompt, loop, want: (prompts_v1.prompt_at_loop(prompt, loop), want),
    "merge_prompt": lambda texts, loops, want: (prompts_v1.join_loops(texts, loops), want),
    "extract_json_from_prompts": references,
    "parse_mask_strategy": lambda text, want: ([list(group) for group in mask_strategy.parse_strategy(text)], want),
    "find_nearest_point": lambda *row: (mask_strategy.nearest_multiple(*row[:3]), row[3]),
    "get_save_path_name": file_name,
    "dframe_to_frame": lambda frames, want: (mask_strategy.chunk_frames(frames), want),
    "prepare_multi_resolution_info": sizes,
}


def cleaning(case: Case) -> Checks:
    for number, (text, cleaned, lower) in enumerate(case.json("text.json")):
        yield f"{number}.clean", clean([text], "clean"), [cleaned]
        yield f"{number}.lower", clean([text], "lower"), [lower]


def warmup(case: Case) -> Checks:
    ctor = case.info["ctor"]
    want = case.json("lr.json")
    got = [
        learning_rate(step, lr=ctor["lr"], warmup_steps=ctor["warmup_steps"], initial_lr=0.0)
        for step in range(len(want))
    ]
    yield "lr", got, want


CHECKS: dict[str, Callable[[Case], Checks]] = {
    "append_generated": append_generated,
    "linear_warmup_lr": warmup,
    "mask_generator": masks,
    "mask_strategy": strategies,
    "prompts": prompts,
    "text_preprocessing": cleaning,
}
