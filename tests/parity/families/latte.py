"""Latte: output from a label or a pooled text."""

from collections.abc import Iterator

from opensora_models.latte.model import Latte
from schemas.denoiser.latte import LatteConfig
from tests.parity.case import Case, build_config
from tests.parity.families.dit import HOW_IT_COMPUTES, SETTLED_BY_INPUT, pooled_output
from tests.parity.latents import load_published

UNREAD = "no_temporal_pos_emb"
"""Upstream's constructor takes it from DiT's, and its forward never looks: the table of time is always added."""


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    ignore = (*SETTLED_BY_INPUT, *HOW_IT_COMPUTES, UNREAD)
    model = load_published(Latte(build_config(LatteConfig, case.info["ctor"], ignore)), case)
    yield "out", pooled_output(model, case.inputs), case.outputs["out"]
