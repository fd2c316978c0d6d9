"""Refusing to share out what a model's family has no plan for."""

import pytest
import torch
from torch import nn

from opensora_cli.distributed.sequence import share_tokens
from opensora_cli.distributed.tensor import share_features
from opensora_models.layers.latent_attention import SpatialAttention
from opensora_models.layers.latent_parallel import SharesFrames, spatial_attention
from opensora_models.stdit3.model import STDiT3
from schemas.denoiser.stdit3 import STDiT3Config
from schemas.errors import OsoraError
from schemas.parallel import ParallelConfig

NO_GROUP = None
"""The refusal comes before any process is asked."""


def test_features_of_latent_denoisers_are_not_shared() -> None:
    with torch.device("meta"):
        model = STDiT3(STDiT3Config(depth=1))
    with pytest.raises(OsoraError, match=r"parallel: STDiT3 has no plan for sharing out features\. Use tp_size = 1\."):
        share_features(model, NO_GROUP)


def test_tokens_of_other_modules_are_not_shared() -> None:
    with pytest.raises(OsoraError, match=r"Linear has no plan for sharing out tokens\. Use sp_size = 1\."):
        share_tokens(nn.Linear(1, 1), NO_GROUP, ParallelConfig())


def test_stdit3_shares_what_its_spatial_attention_sees() -> None:
    with torch.device("meta"):
        model = STDiT3(STDiT3Config(depth=2))
    assert isinstance(model, SharesFrames)
    assert list(spatial_attention(model)) == [block.attn for block in model.spatial_blocks]
    assert not any(isinstance(block.attn, SpatialAttention) for block in model.temporal_blocks)
