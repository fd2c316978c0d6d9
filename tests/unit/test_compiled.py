"""Compiled blocks: the same numbers, the same names, and a bounded number of graphs."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from opensora_models.compiled import compile_blocks, compile_seconds
from opensora_models.diffusion.latent_packing import image_ids, text_ids
from opensora_models.mmdit.model import MMDiT
from tests.unit.sampling_models import MODEL, randomised

CONFIG = MODEL.model_copy(update={"depth": 2, "depth_single_blocks": 2, "cond_embed": False})


def inputs(batch: int, frames: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(frames)
    return {
        "img_BND": torch.randn(batch, frames * 4, CONFIG.in_channels, generator=draw),
        "img_ids_BN3": image_ids(frames, 4, 4, 2, batch=batch),
        "txt_BLD": torch.randn(batch, 3, CONFIG.context_in_dim, generator=draw),
        "txt_ids_BL3": text_ids(3, batch=batch),
        "timesteps_B": torch.full((batch,), 0.5),
        "y_vec_BD": torch.randn(batch, CONFIG.vec_in_dim, generator=draw),
    }


def test_compiled_blocks_give_the_same_and_share_graphs() -> None:
    torch._dynamo.reset()
    model = randomised(MMDiT(CONFIG.model_copy(update={"use_liger_rope": False, "fused_qkv": True})), 1)
    keys, sizes = list(model.state_dict()), [(2, 3), (2, 5)]
    with torch.no_grad():
        want = [model(**inputs(*size)) for size in sizes]
        graphs, before = CompileCounterWithBackend("eager"), compile_seconds()
        compile_blocks(model, any_size=True, backend=graphs)
        got = [model(**inputs(*size)) for size in sizes]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    # The first double block, whose inputs are views, the others; the single ones, and the last, which drops the text.
    assert graphs.frame_count == 4
    assert list(model.state_dict()) == keys
    assert compile_seconds() > before


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute"
)  # PyTorch looks at it itself, and hides the warning from others
def test_gradients_of_compiled_and_recomputed_blocks_are_the_same() -> None:
    torch._dynamo.reset()
    gradients = []
    for compiled in (False, True):
        model = randomised(MMDiT(CONFIG.model_copy(update={"depth": 1})), 1).requires_grad_(True)
        model.set_grad_checkpointing(1, 1)
        if compiled:
            compile_blocks(model, any_size=True, backend="eager")
        model(**inputs(2, 2)).square().mean().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)
