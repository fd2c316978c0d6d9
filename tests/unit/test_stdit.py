"""The three STDiT denoisers: what their interface promises beyond upstream's numbers."""

import json
from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor, nn

from opensora_models.layers.recompute import Recompute
from opensora_models.stdit import recognise as stdit_shapes
from opensora_models.stdit.model import STDiT
from opensora_models.stdit2 import recognise as stdit2_shapes
from opensora_models.stdit2.model import STDiT2
from opensora_models.stdit3 import recognise as stdit3_shapes
from opensora_models.stdit3.model import STDiT3
from opensora_models.weights import check_fit
from schemas.base import Schema
from schemas.denoiser.stdit import STDiTConfig
from schemas.denoiser.stdit2 import STDiT2Config
from schemas.denoiser.stdit3 import STDiT3Config
from schemas.errors import OsoraError

FAMILIES: dict[str, tuple[type[nn.Module], type[Schema]]] = {
    "stdit": (STDiT, STDiTConfig),
    "stdit2": (STDiT2, STDiT2Config),
    "stdit3": (STDiT3, STDiT3Config),
}
RECOGNISERS = {"stdit": stdit_shapes, "stdit2": stdit2_shapes, "stdit3": stdit3_shapes}
SMALL = {"hidden_size": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "caption_channels": 10, "model_max_length": 5}
FRAMES = 3


def build(family: str, *, fresh: bool = False, **changes: object) -> nn.Module:
    """A small model, the same one at each call; unless `fresh`, with no weight left at zero."""
    kind, schema = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind(schema.model_validate(SMALL | changes))
        for name, weight in model.named_parameters() if not fresh else ():
            nn.init.normal_(weight, 1.0 if name.endswith("_norm.weight") else 0.0, 0.2)
    return model


def inputs(model: nn.Module, frames: int = FRAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    made = {
        "x_BCTHW": torch.randn(2, 4, frames, 4, 6, generator=generator),
        "timesteps_B": torch.tensor([300.0, 870.0]),
        "text_BLD": torch.randn(2, 5, 10, generator=generator),
        "text_mask_BL": torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
        "drop_B": torch.tensor([False, False]),
        "x_mask_BT": torch.ones(2, frames, dtype=torch.bool),
        "fps_B": torch.tensor([24.0, 8.0]),
        "height_B": torch.tensor([32.0, 32.0]),
        "width_B": torch.tensor([48.0, 48.0]),
        "num_frames_B": torch.tensor([17.0, 17.0]),
        "aspect_B": torch.tensor([2 / 3, 2 / 3]),
    }
    return {name: value for name, value in made.items() if name in {"x_BCTHW", "timesteps_B", *model.conditions}}


each_family = pytest.mark.parametrize("family", list(FAMILIES))


@each_family
def test_masked_text_is_as_if_it_were_not_there(family: str) -> None:
    model = build(family)
    given = inputs(model)
    out = model(**given)
    row = {name: value[1:] for name, value in given.items()}
    alone = model(**row | {"text_BLD": row["text_BLD"][:, :3], "text_mask_BL": None})
    torch.testing.assert_close(out[1:], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(**row | {"text_mask_BL": None}), alone, atol=1e-3)


@each_family
def test_a_dropped_text_is_the_null_one(family: str) -> None:
    model = build(family)
    given = inputs(model)
    dropped = model(**given | {"drop_B": torch.tensor([True, False])})
    text_BLD = given["text_BLD"].clone()
    text_BLD[0] = model.y_embedder.y_embedding
    torch.testing.assert_close(dropped, model(**given | {"text_BLD": text_BLD}))
    assert not torch.allclose(dropped, model(**given), atol=1e-3)


@each_family
def test_frames_that_are_all_denoised_need_no_mask(family: str) -> None:
    model = build(family)
    given = inputs(model)
    torch.testing.assert_close(model(**given), model(**given | {"x_mask_BT": None}))


@each_family
def test_given_frames_are_seen_as_at_time_0(family: str) -> None:
    model = build(family)
    given = inputs(model)
    later = given | {"timesteps_B": torch.tensor([500.0, 500.0])}
    none = {"x_mask_BT": torch.zeros(2, FRAMES, dtype=torch.bool)}
    assert not torch.allclose(model(**given), model(**later), atol=1e-3)
    if family == "stdit3":  # the others have places where the time of a clip counts for all of its frames
        hidden = [model.spatial_blocks[0].register_forward_hook(lambda _m, _i, out: seen.append(out))]
        seen: list[Tensor] = []
        model(**given | none)
        model(**later | none)
        hidden[0].remove()
        torch.testing.assert_close(*seen)


@each_family
def test_recomputing_changes_no_gradient(family: str) -> None:
    plain, again = build(family), build(family)
    ran: list[nn.Module] = []
    again.set_grad_checkpointing(2, 1, how=Recompute("nothing"))
    for block in again.units:
        block.register_forward_pre_hook(lambda module, _inputs: ran.append(module))
    for model in (plain, again):
        model(**inputs(model)).square().mean().backward()
    assert [ran.count(block) for block in again.units] == ([2, 2, 2, 1] if family == "stdit3" else [2, 2])
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)


def test_a_new_stdit3_is_an_image_model() -> None:
    model = build("stdit3", fresh=True)
    given = inputs(model)
    out = model(**given)
    for frame in range(FRAMES):
        picture = {"x_BCTHW": given["x_BCTHW"][:, :, [frame]], "x_mask_BT": None}
        torch.testing.assert_close(out[:, :, [frame]], model(**given | picture), atol=1e-5, rtol=1e-4)
    assert out.std() > 0.1


@pytest.mark.parametrize("family", ["stdit", "stdit2"])
def test_new_models_start_from_nothing(family: str) -> None:
    model = build(family, fresh=True)
    assert not model(**inputs(model)).any()
    assert not any(block.attn_temp.proj.weight.any() or block.cross_attn.proj.weight.any() for block in model.blocks)
    assert model.t_block[1].weight.std() < 0.03


def test_a_frozen_text_embedder_is_not_trained() -> None:
    model = build("stdit3", freeze_y_embedder=True)
    model(**inputs(model)).sum().backward()
    untrained = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert untrained == {f"y_embedder.y_proj.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")}


@each_family
def test_autocast_and_bf16_stay_near(family: str) -> None:
    model = build(family)
    given = inputs(model)
    want = model(**given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**given)
    half = model.to(torch.bfloat16)(**given)
    assert half.dtype == torch.bfloat16
    for out in (mixed, half):
        assert (out.float() - want).abs().mean() < 0.05 * want.abs().mean()


@each_family
def test_shapes_say_what_a_model_is(family: str) -> None:
    model = build(family, patch_size=(2, 2, 2), pred_sigma=False)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes["rope.freqs"] = (6,)
    found = RECOGNISERS[family].recognise(shapes)
    assert found is not None
    config = FAMILIES[family][1].model_validate(found)
    free = {"num_heads", "input_sq_size"}
    assert config.model_dump(exclude=free) == model.config.model_dump(exclude=free)
    assert found["num_heads"] == 2
    assert not any(RECOGNISERS[other].recognise(shapes) for other in FAMILIES if other != family)


@pytest.mark.parametrize(
    ("family", "added"),
    [
        ("stdit", ["blocks.*.attn_temp.*"]),
        ("stdit2", ["*_temp*", "[acf]*_embedder.*"]),
        ("stdit3", ["temporal_blocks.*", "fps_embedder.*"]),
    ],
)
def test_weights_of_an_image_model_fill_the_spatial_part(family: str, added: list[str]) -> None:
    assert str(FAMILIES[family][1].model_fields["allow_missing"].description).count(json.dumps(added)) == 1
    model = build(family)
    state = {
        key.replace("spatial_blocks.", "blocks."): tensor
        for key, tensor in model.state_dict().items()
        if not any(fnmatchcase(key, glob) for glob in added)
    }
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"][:, :, 0]
    state["y_embedder.y_embedding"] = state["y_embedder.y_embedding"][:3]
    state["pos_embed"] = torch.zeros(1, 6, 24)
    own = model.as_own(state)
    assert {key.split(".")[0] for key in state} >= {"t_embedder", "y_embedder", "final_layer", "t_block", "blocks"}
    check_fit(model, own, "pixart.pth", allow_missing=added)
    assert torch.equal(own["y_embedder.y_embedding"][2:], state["y_embedder.y_embedding"][[2, 2, 2]])


CHANGES = {"depth": 3, "hidden_size": 36, "in_channels": 5, "patch_size": (1, 1, 2), "pred_sigma": False}
CHANGES |= {"model_max_length": 6, "caption_channels": 11, "mlp_ratio": 3.0}
NORM_CHANGES = {"num_heads": 3, "qk_norm": False}
"""What shows in the norms of queries and keys, which STDiT does not have."""


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [(family, *change) for family in FAMILIES for change in CHANGES.items()]
    + [(family, *change) for family in ("stdit2", "stdit3") for change in NORM_CHANGES.items()],
)
def test_a_misfit_names_the_key(family: str, key: str, value: object) -> None:
    with pytest.raises(OsoraError, match=rf"Likely cause: `model\.{key}` in"):
        check_fit(build(family, **{key: value}), build(family).state_dict(), "a.safetensors")


@pytest.mark.parametrize("family", ["stdit2", "stdit3"])
def test_features_that_are_rotated_come_in_pairs(family: str) -> None:
    with pytest.raises(OsoraError, match=r"model\.hidden_size / model\.num_heads = 3: .* has to be even"):
        build(family, num_heads=8)


@each_family
def test_texts_that_are_too_long_are_refused(family: str) -> None:
    model = build(family)
    given = inputs(model)
    given["text_BLD"] = torch.zeros(2, 6, 10)
    with pytest.raises(ValueError, match="6 tokens, and the null caption 5"):
        model(**given | {"text_mask_BL": None})


def test_sizes_of_stdit2_take_a_third_each() -> None:
    with pytest.raises(OsoraError, match=r"model\.hidden_size = 32: .* Use a multiple of 3"):
        build("stdit2", hidden_size=32)
