"""The two-stage autoencoder: lengths, parts, what a file decides and what the recipe does, and its training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.training.draws import Draws, keyed_generator
from opensora_cli.training.vae_objective import VaeObjective
from opensora_models.autoencoder_weights import load_autoencoder
from opensora_models.build import build_autoencoder
from opensora_models.clip_decoding import decode_clip
from opensora_models.open_sora_vae.model import OpenSoraVAE
from opensora_models.open_sora_vae.temporal import VAETemporal
from opensora_models.recognise import recognise
from opensora_models.weights import fit_weights
from schemas.autoencoder import OpenSoraVAEConfig, VAETemporalConfig
from schemas.autoencoder.frames import latent_frames, most_frames
from schemas.errors import OsoraError
from schemas.recipes import VaeTrainRecipe
from tests.unit.training_fakes import FakeBatch

CPU = torch.device("cpu")
PICTURES = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
TIME = {
    "filters": 4,
    "num_res_blocks": 1,
    "channel_multipliers": (1, 2, 2),
    "temporal_downsample": (True, True),
    "num_groups": 2,
}


def settings(**changes: object) -> dict[str, object]:
    base = {"type": "open_sora_vae", "vae_2d": PICTURES, "vae_temporal": TIME, "micro_frame_size": 5}
    return base | changes


def build(**changes: object) -> OpenSoraVAE:
    torch.manual_seed(5)
    ae = build_autoencoder(OpenSoraVAEConfig.model_validate(settings(**changes)))
    assert isinstance(ae, OpenSoraVAE)
    return ae.eval()


def clip(frames: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, frames, 8, 8, generator=torch.Generator().manual_seed(6)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 10, 12])
def test_clips_of_any_length_come_back_as_long(frames: int) -> None:
    ae, x = build(), clip(frames)
    z = ae.encode(x)
    assert z.shape[2:] == ae.latent_size(frames, 8, 8)
    assert ae.decode(z, frames).shape == x.shape
    assert torch.equal(decode_clip(ae, z, frames), ae.decode(z, frames))
    most = most_frames(ae.config, z.shape[2])
    assert ae.decode(z).shape[2] == most >= frames
    assert latent_frames(ae.config, most) == z.shape[2] < latent_frames(ae.config, most + 1)


def test_frames_that_fill_up_are_cut_in_front() -> None:
    """The shorter clip is the longer one without its first frames; cut at the end, it would be another."""
    ae = build(micro_frame_size="whole")
    z = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(ae.decode(z, 6), ae.decode(z)[:, :, 2:], atol=1e-5, rtol=1e-4)


def test_a_length_that_does_not_fit_the_latents_is_refused() -> None:
    ae = build()
    with pytest.raises(OsoraError, match="num_frames = 4 are 1 latent frames, but there are 2"):
        ae.decode(ae.encode(clip(5)), 4)


def test_parts_do_not_see_each_other() -> None:
    ae, x = build(), clip(10)
    z = ae.encode(x)
    torch.testing.assert_close(ae.encode(x[:, :, 5:]), z[:, :, 2:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ae.decode(z[:, :, 2:], 5), ae.decode(z, 10)[:, :, 5:], atol=1e-5, rtol=1e-4)


def test_the_recipe_decides_shift_and_scale_whatever_the_file_has(tmp_path: Path) -> None:
    trained = build(shift=0.0, scale=1.0)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    config = OpenSoraVAEConfig.model_validate(settings(shift=(1.0, 2.0, 3.0, 4.0), scale=(2.0, 2.0, 2.0, 4.0)))
    ae = frozen_autoencoder(config, tmp_path / "model.safetensors", seed=1, dtype=torch.float32, device=CPU)
    x, shift_C = clip(5), torch.tensor(config.shift)
    expected = (trained.encode(x) - shift_C.view(-1, 1, 1, 1)) / torch.tensor(config.scale).view(-1, 1, 1, 1)
    torch.testing.assert_close(ae.encode(x), expected.detach())
    torch.testing.assert_close(ae.state_dict()["shift"].flatten(), shift_C)
    torch.testing.assert_close(decode_clip(ae, expected, 5), trained.decode(trained.encode(x), 5), atol=1e-4, rtol=1e-4)


def test_latents_of_moments_need_no_weights() -> None:
    ae = build()
    moments = ae.moments(clip(5))
    empty = frozen_autoencoder(ae.config, "nowhere", seed=1, dtype=torch.float32, device=torch.device("meta"))
    assert torch.equal(empty.latents(moments), ae.latents(moments))


def test_stages_load_from_their_own_files(tmp_path: Path) -> None:
    ae, other = build(), build()
    pictures = {f"module.{key}": tensor + 1 for key, tensor in ae.spatial_vae.module.state_dict().items()}
    save_file(pictures, tmp_path / "vae.safetensors")
    before = {key: tensor.clone() for key, tensor in other.temporal_vae.state_dict().items()}
    other.config = OpenSoraVAEConfig.model_validate(
        settings(vae_2d=PICTURES | {"from_pretrained": str(tmp_path / "vae.safetensors")})
    )
    assert load_autoencoder(other, None)
    assert torch.equal(other.spatial_vae.module.quant_conv.bias, ae.spatial_vae.module.quant_conv.bias + 1)
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.temporal_vae.state_dict().items())
    assert not load_autoencoder(build(), None)


def test_weights_are_recognised() -> None:
    ae = build()
    found = recognise({key: tuple(tensor.shape) for key, tensor in ae.state_dict().items()})
    assert found is not None
    assert (found.table, found.config["type"], found.config["vae_2d"]["type"]) == (
        "ae",
        "open_sora_vae",
        "autoencoder_kl",
    )
    alone = recognise({key: tuple(tensor.shape) for key, tensor in ae.temporal_vae.state_dict().items()})
    assert alone is not None
    temporal = {key: tuple(value) if isinstance(value, list) else value for key, value in alone.config.items()}
    assert VAETemporalConfig.model_validate(temporal | {"num_groups": 2}) == ae.config.vae_temporal


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"vae_temporal": TIME | {"num_res_blocks": 2}}, "vae_temporal.num_res_blocks"),
        ({"vae_temporal": TIME | {"filters": 8}}, "vae_temporal.filters"),
        ({"vae_temporal": TIME | {"temporal_downsample": (False, True)}}, "vae_temporal.temporal_downsample"),
        ({"vae_2d": PICTURES | {"layers_per_block": 2}}, "vae_2d.layers_per_block"),
    ],
)
def test_weights_of_another_shape_name_the_likely_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(OsoraError, match=rf"Likely cause: `ae\.{key}`"):
        fit_weights(build(), build(**change).state_dict(), "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vae_2d": PICTURES | {"latent_channels": 8}}, "ae.vae_2d.latent_channels = 8, but"),
        ({"shift": (1.0, 2.0)}, "ae.shift has 2 values, but there are 4 latent channels"),
        ({"vae_temporal": TIME | {"temporal_downsample": (True,)}}, "temporal_downsample has 1 entries"),
        ({"vae_temporal": TIME | {"num_groups": 3}}, "no multiple of ae.num_groups = 3"),
    ],
)
def test_stages_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        build(**change)


def objective(ae: dict[str, object] | None = None, **tables: object) -> VaeObjective:
    base: dict[str, object] = {"kind": "vae-train", "dtype": "fp32", "ae": settings(**(ae or {}))}
    return VaeObjective(VaeTrainRecipe.model_validate(base | tables), CPU)


def learn(one: VaeObjective, frames: int) -> dict[str, Tensor]:
    """Go back from the loss of a batch and return its metrics."""
    batch = FakeBatch(clip(frames, 2), rows=[0, 1])
    (loss,) = one.losses(batch, Draws(0, 0, 0, 0))  # type: ignore[arg-type]
    loss.value.backward()
    return {"loss": loss.value, **loss.metrics}


LATENTS_ALONE = {"use_real_rec_loss": False, "use_z_rec_loss": True, "use_image_identity_loss": True}


def test_frozen_pictures_get_no_gradient_and_the_stage_along_time_does() -> None:
    one = objective({"freeze_vae_2d": True}, vae_loss=LATENTS_ALONE)
    metrics = learn(one, 6)
    assert all(p.grad is None for p in one.ae.spatial_vae.parameters())
    assert all(p.grad is not None for p in one.ae.temporal_vae.parameters())
    torch.testing.assert_close(metrics["loss"], metrics["rebuilt"])


def test_only_images_are_to_stay_as_they_are() -> None:
    one = objective(vae_loss=LATENTS_ALONE)
    assert "image_identity" not in learn(one, 2)
    metrics = learn(one, 1)
    torch.testing.assert_close(metrics["loss"], metrics["rebuilt"] + metrics["image_identity"])
    generator = keyed_generator("x", 1)
    stages = one.ae.through_stages(clip(1), generator)
    assert stages.latents.shape == stages.pictures.shape


def test_pixels_and_kl_count_together() -> None:
    metrics = learn(objective(vae_loss={"kl_loss_weight": 0.5, "use_z_rec_loss": True}), 5)
    expected = metrics["reconstruction"] + 0.5 * metrics["kl"] + metrics["rebuilt"]
    torch.testing.assert_close(metrics["loss"], expected)


@pytest.mark.parametrize("keep", ["nothing", "products"])
def test_recomputing_changes_no_gradient(keep: str) -> None:
    plain, saving = objective(), objective(memory={"grad_checkpoint": True, "grad_ckpt_keep": keep})
    calls: list[int] = []
    for stage in (
        saving.ae.temporal_vae.decoder.block_res_blocks[0][0],
        saving.ae.spatial_vae.module.encoder.down_blocks[0],
    ):
        stage.register_forward_hook(lambda *_: calls.append(1))
    for one in (plain, saving):
        learn(one, 3)
    assert len(calls) > 2
    for (name, p), q in zip(plain.module.named_parameters(), saving.module.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_the_stage_along_time_is_an_autoencoder_of_its_own() -> None:
    ae = VAETemporal(VAETemporalConfig.model_validate(TIME | {"in_out_channels": 3}))
    x = clip(6, 2)
    reconstruction, posterior = ae(x, torch.Generator().manual_seed(1))
    assert reconstruction.shape == x.shape
    assert posterior.mean.shape[2:] == ae.latent_size(6, 8, 8) == (2, 8, 8)
