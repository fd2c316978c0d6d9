"""STDiT: the output."""

from collections.abc import Iterator

import torch

from opensora_models.stdit.model import STDiT
from schemas.denoiser.stdit import STDiTConfig
from tests.parity.case import Case, build_config
from tests.parity.latents import NOT_CONFIGURED, latent_inputs, load_published


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    model = load_published(STDiT(build_config(STDiTConfig, case.info["ctor"], ignore=NOT_CONFIGURED)), case)
    with torch.no_grad():
        yield "out", model(**latent_inputs(case)), case.outputs["out"]
