"""STDiT2: the output."""

from collections.abc import Iterator

import torch

from opensora_models.stdit2.model import STDiT2
from schemas.denoiser.stdit2 import STDiT2Config
from tests.parity.case import Case, build_config
from tests.parity.latents import NOT_CONFIGURED, latent_inputs, load_published


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    model = load_published(STDiT2(build_config(STDiT2Config, case.info["ctor"], ignore=NOT_CONFIGURED)), case)
    with torch.no_grad():
        yield "out", model(**latent_inputs(case)), case.outputs["out"]
