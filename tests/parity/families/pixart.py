"""PixArt, PixArtMS and PixArt-Sigma: output from text, and from the frame's size where the model takes it."""

from collections.abc import Iterator
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from opensora_models.pixart.model import PixArt
from schemas.denoiser.pixart import KVCompression, PixArtConfig
from tests.parity.case import Case, build_config
from tests.parity.families.dit import HOW_IT_COMPUTES
from tests.parity.latents import load_published


@torch.no_grad()
def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    model = load_published(PixArt(_config(case)), case)
    yield "out", model(**_inputs(case)), case.outputs["out"]


def _config(case: Case) -> PixArtConfig:
    """Return the constructor's arguments as a config; None is upstream's word for a default."""
    ctor: dict[str, Any] = {key: value for key, value in case.info["ctor"].items() if value is not None}
    if case.info["upstream"].endswith("PixArtMS"):
        ctor["multi_scale"] = True
    if "kv_compress_config" in ctor:
        table = {key: value for key, value in ctor["kv_compress_config"].items() if value is not None}
        ctor["kv_compress_config"] = build_config(KVCompression, table)
    if "base_size" not in ctor and "input_size" in ctor:
        ctor["base_size"] = _base_size(ctor["input_size"], ctor.get("patch_size", [1, 2, 2]))
        if case.inputs["x"].shape[-2:] == tuple(ctor["input_size"][1:]):
            ctor["base_size"] = "auto"
    return build_config(PixArtConfig, ctor, ["input_size", *HOW_IT_COMPUTES])


def _base_size(input_size: list[int], patch: list[int]) -> int:
    """Return upstream's base size, which stays that of the constructor's input, in latent pixels."""
    return isqrt((input_size[1] // patch[1]) * (input_size[2] // patch[2])) * patch[1]


def _inputs(case: Case) -> dict[str, Tensor]:
    given = case.inputs
    inputs = {"x_BCTHW": given["x"], "timesteps_B": given["timestep"], "text_BLD": given["y"][:, 0]}
    if "mask" in given:
        mask = given["mask"].bool().flatten(1)
        inputs["text_mask_BL"] = mask.repeat(len(given["y"]) // len(mask), 1)
    if "force_drop_ids" in given:
        inputs["drop_B"] = given["force_drop_ids"].bool()
    if "data_info.hw" in given:
        rows = len(given["x"])
        height_B, width_B = _repeated(given["data_info.hw"], rows).unbind(1)
        aspect_B = _repeated(given["data_info.ar"], rows)[:, 0]
        inputs |= {"height_B": height_B, "width_B": width_B, "aspect_B": aspect_B}
    return inputs


def _repeated(sizes: Tensor, rows: int) -> Tensor:
    return sizes.repeat(rows // len(sizes), 1)
