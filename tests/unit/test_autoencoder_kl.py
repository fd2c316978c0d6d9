"""Stable Diffusion's autoencoders: their interface, their portions, and the names that their files may have."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from opensora_cli.training.draws import Draws
from opensora_cli.training.vae_objective import VaeObjective
from opensora_models.autoencoder_kl.model import AutoencoderKL, AutoencoderKLTemporalDecoder
from opensora_models.autoencoder_weights import load_autoencoder
from opensora_models.recognise import recognise
from opensora_models.weights import fit_weights
from schemas.autoencoder import AutoencoderKLConfig, AutoencoderKLTemporalDecoderConfig
from schemas.errors import OsoraError
from schemas.recipes import VaeTrainRecipe
from tests.unit.training_fakes import FakeBatch

SIZES = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}


def build(**changes: object) -> AutoencoderKL:
    torch.manual_seed(5)
    return AutoencoderKL(AutoencoderKLConfig.model_validate(SIZES | changes)).eval()


def build_temporal() -> AutoencoderKLTemporalDecoder:
    torch.manual_seed(5)
    config = AutoencoderKLTemporalDecoderConfig(block_out_channels=(32, 32), layers_per_block=2)
    return AutoencoderKLTemporalDecoder(config).eval()


def clip(frames: int, height: int = 12, width: int = 16) -> Tensor:
    return torch.rand(2, 3, frames, height, width, generator=torch.Generator().manual_seed(6)) * 2 - 1


@pytest.mark.parametrize("ae", [build(), build_temporal()])
def test_sizes_are_those_it_announces(ae: AutoencoderKL | AutoencoderKLTemporalDecoder) -> None:
    assert (ae.strides, ae.causal, ae.latent_channels) == ((1, 2, 2), False, 4)
    z = ae.encode(clip(3, 13, 16))
    assert z.shape == (2, 4, *ae.latent_size(3, 13, 16))
    assert ae.decode(z).shape == (2, 3, 3, 12, 16)


def test_encoding_draws_only_when_asked() -> None:
    ae, x = build(scale_factor=0.5, shift_factor=0.25), clip(2)
    posterior = ae.posterior(x)
    torch.testing.assert_close(ae.encode(x), 0.5 * (posterior.mean - 0.25))
    one, same, other = (ae.encode(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    reconstruction, drawn = ae(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.moments, posterior.moments)
    torch.testing.assert_close(reconstruction, ae.decode(one))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("frames", [1, 4, 5, 6])
def test_portions_change_nothing_and_are_no_larger_than_said(frames: int, gradients: bool) -> None:
    ae, whole, x = build(micro_batch_size=frames), build(micro_batch_size=99), clip(3)
    seen: list[int] = []
    ae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with torch.set_grad_enabled(gradients):
        z = ae.encode(x)
        torch.testing.assert_close(z, whole.encode(x), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ae.decode(z), whole.decode(z), atol=1e-5, rtol=1e-4)
    assert sum(seen) == 6
    assert max(seen) == frames


def test_only_the_temporal_decoder_joins_frames() -> None:
    z = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    changed = z.clone()
    changed[:, :, 2] += 1
    for ae, joins in ((build(), False), (build_temporal(), True)):
        assert (not torch.allclose(ae.decode(z)[:, :, 1], ae.decode(changed)[:, :, 1], atol=1e-5)) == joins


def old_names(key: str) -> str:
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
    return key


@pytest.mark.parametrize("name", ["{}", "module.{}"])
@pytest.mark.parametrize("old", [False, True])
def test_files_of_others_load_and_are_recognised(tmp_path: Path, name: str, old: bool) -> None:
    ae, other = build(), build(scale_factor=1.0)
    state = {name.format(old_names(key) if old else key): tensor + 1 for key, tensor in ae.state_dict().items()}
    assert not old or any(".proj_attn." in key for key in state)
    folder = tmp_path / "vae"
    folder.mkdir()
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    assert load_autoencoder(other, tmp_path)
    for key, tensor in ae.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor + 1), key
    found = recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert found is not None
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in found.config.items()}
    assert AutoencoderKLConfig.model_validate(known | {"norm_num_groups": 4}) == ae.config


def test_the_temporal_decoder_is_recognised() -> None:
    found = recognise({key: tuple(tensor.shape) for key, tensor in build_temporal().state_dict().items()})
    assert found is not None
    assert (found.table, found.config["type"]) == ("ae", "autoencoder_kl_temporal_decoder")
    assert (found.config["block_out_channels"], found.config["layers_per_block"]) == ([32, 32], 2)


TRAINED = [
    {"type": "autoencoder_kl", **SIZES},
    {"type": "autoencoder_kl_temporal_decoder", "block_out_channels": (32, 32), "layers_per_block": 2},
]


@pytest.mark.parametrize("ae", TRAINED)
def test_both_train_in_mixed_precision_with_recomputing(ae: dict[str, object]) -> None:
    memory = {"grad_checkpoint": True, "grad_ckpt_keep": "products"}
    recipe = VaeTrainRecipe.model_validate({"kind": "vae-train", "ae": ae, "memory": memory})
    objective = VaeObjective(recipe, torch.device("cpu"))
    batch = FakeBatch(clip(2, 8, 8), rows=[0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        (loss,) = objective.losses(batch, Draws(0, 0, 0, 0))  # type: ignore[arg-type]
    loss.value.backward()
    left = [name for name, p in objective.module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert left == []


def test_widths_must_suit_the_norms() -> None:
    with pytest.raises(OsoraError, match=r"block_out_channels = \[8, 18\]: 18 is no multiple of the 4 groups"):
        build(block_out_channels=(8, 18))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"layers_per_block": 2}, "layers_per_block"),
        ({"block_out_channels": (16, 16)}, "block_out_channels"),
        ({"block_out_channels": (8, 16, 16)}, "block_out_channels"),
        ({"latent_channels": 8}, "latent_channels"),
        ({"in_channels": 4}, "in_channels"),
    ],
)
def test_weights_of_another_shape_name_the_likely_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(OsoraError, match=rf"Likely cause: `ae\.{key}`"):
        fit_weights(build(), build(**change).state_dict(), "x")
