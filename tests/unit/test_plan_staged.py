"""The planner's figures for autoencoders that work in portions, against what their code allocates on a CPU."""

from typing import Literal

import pytest
import torch

from opensora_cli.planning.autoencoders import AutoencoderTraining
from opensora_cli.planning.coding import coding
from opensora_cli.planning.modules import count_autoencoder
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.sharing import Sharing
from opensora_cli.planning.traced import LiveStorages, SavedStorages, pixel_channels
from opensora_models.build import build_autoencoder
from schemas.autoencoder import (
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    OpenSoraVAEConfig,
    VAETemporalConfig,
)
from schemas.recipes import VaeTrainRecipe

PICTURES = AutoencoderKLConfig(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4, micro_batch_size=3)
TIME = VAETemporalConfig(
    filters=16, num_res_blocks=1, num_groups=4, channel_multipliers=(1, 2), temporal_downsample=(True,)
)
CONFIGS: list[AutoencoderConfig] = [
    PICTURES,
    AutoencoderKLTemporalDecoderConfig(block_out_channels=(32, 64), layers_per_block=1),
    TIME,
    OpenSoraVAEConfig(vae_2d=PICTURES, vae_temporal=TIME, micro_frame_size=4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_estimates_are_what_the_code_allocates(
    config: AutoencoderConfig, direction: Literal["encode", "decode"]
) -> None:
    extent = (5, 16, 24)
    found = coding(config, Precision.of("fp32", "cpu"), 2, extent, direction)
    ae = build_autoencoder(config)
    size = (pixel_channels(config), *extent)
    if direction == "decode":
        size = (ae.latent_channels, *ae.latent_size(*extent))
    x = torch.zeros(2, *size)
    live = LiveStorages()
    live.sizes[x.untyped_storage()._cdata] = 0  # the input does not count, though operations return views of it
    with live, torch.no_grad():
        ae.moments(x) if direction == "encode" else ae.decode(x)
    assert found.peak == pytest.approx(live.peak, rel=0.15)
    saved = SavedStorages(ae)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        ae.moments(x) if direction == "encode" else ae.decode(x)
    assert found.saved == pytest.approx(saved.total, rel=0.15)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_pictures_have_no_moments_and_no_gradients(frozen: bool) -> None:
    config = OpenSoraVAEConfig(vae_2d=PICTURES, vae_temporal=TIME, freeze_vae_2d=frozen)
    recipe = VaeTrainRecipe(kind="vae-train", ae=config)
    counted = count_autoencoder(config)
    training = AutoencoderTraining(recipe, config, "cpu", Sharing(1, 1, 1, 1, 0, False, 0), counted)
    trained = counted.children["temporal_vae"] if frozen else counted.total
    assert training.gradients == 4 * trained
    assert training.states["optimizer"] == 8 * trained
    assert training.states["weights"] == 4 * counted.total
