"""STDiT3: the output and the position table."""

from collections.abc import Iterator

import torch

from opensora_models.layers.latent_patches import patch_grid
from opensora_models.stdit3.model import STDiT3
from schemas.denoiser.stdit3 import STDiT3Config
from tests.parity.case import Case, build_config
from tests.parity.latents import NOT_CONFIGURED, latent_inputs, load_published


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    config = build_config(STDiT3Config, case.info["ctor"], ignore=NOT_CONFIGURED)
    model = load_published(STDiT3(config), case)
    inputs = latent_inputs(case)
    _, rows, columns = patch_grid(inputs["x_BCTHW"].shape[2:], config.patch_size)
    with torch.no_grad():
        got = {
            "out": model(**inputs),
            "aux_pos_emb": model.positions(rows, columns, inputs["height_B"], inputs["width_B"])[None],
        }
    for name, want in case.outputs.items():
        yield name, got.get(name, f"{name} is nothing that the model has"), want
