"""DiT: output from a label or a pooled text."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from opensora_models.dit.model import DiT
from schemas.denoiser.dit import DiTConfig
from tests.parity.case import Case, build_config
from tests.parity.latents import load_published

SETTLED_BY_INPUT = ("input_size", "model_max_length")
"""Arguments of upstream's constructors that this model takes from its input: the tables' size; a pooled text is one token."""
HOW_IT_COMPUTES = (
    *("dtype", "drop_path", "enable_flashattn", "enable_flash_attn", "enable_layernorm_kernel"),
    "enable_sequence_parallelism",
)


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    ignore = (*SETTLED_BY_INPUT, *HOW_IT_COMPUTES)
    model = load_published(DiT(build_config(DiTConfig, case.info["ctor"], ignore)), case)
    yield "out", pooled_output(model, case.inputs), case.outputs["out"]


@torch.no_grad()
def pooled_output(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the output for one label or pooled text a row; text is (B, 1, 1, D) in upstream's."""
    y = inputs["y"]
    condition = {"labels_B": y} if y.dim() == 1 else {"text_BLD": y[:, 0]}
    drop = {"drop_B": inputs["force_drop_ids"].bool()} if "force_drop_ids" in inputs else {}
    return model(inputs["x"], inputs["t"], **condition, **drop)
