"""Attention kernels: each gives what PyTorch's gives, and a missing package is said before models are loaded."""

from importlib.util import find_spec

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from opensora_cli.sampling.models import load_models
from opensora_models.mmdit.attention import FLASH_PACKAGES, attention, flex, pick_attention, preferred_kernels
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
def test_flex_gives_the_same_with_fewer_queries_than_keys() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, tokens, 2, 16, generator=draw) for tokens in (5, 9, 9))
    torch.testing.assert_close(flex(flex_attention)(q, k, v), attention(q, k, v), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(any(map(find_spec, FLASH_PACKAGES)), reason="flash-attn is installed here")
def test_a_missing_package_is_said_before_models_are_loaded() -> None:
    recipe = SampleRecipe.model_validate({"kind": "sample", "sampling": {"attention": "flash"}})
    with pytest.raises(OsoraError, match=r'sampling\.attention = "flash": flash-attn is not installed'):
        load_models(recipe, {"model": "nowhere", "ae": "nowhere"}, torch.float32, CPU)


def test_the_default_is_pytorchs_and_prefers_nothing_on_a_cpu() -> None:
    assert pick_attention("auto") is pick_attention("sdpa") is attention
    with preferred_kernels("auto", CPU):
        assert torch.backends.cuda.flash_sdp_enabled()
