"""DiT, Latte and PixArt: what their interface promises beyond upstream's numbers."""

import pytest
import torch
from torch import Tensor, nn

from opensora_models.dit.model import DiT
from opensora_models.dit.recognise import recognise as recognise_dit
from opensora_models.latte.model import Latte
from opensora_models.latte.recognise import recognise as recognise_latte
from opensora_models.pixart.blocks import CompressedAttention
from opensora_models.pixart.model import PixArt
from opensora_models.pixart.recognise import recognise as recognise_pixart
from opensora_models.weights import check_fit, fit_weights
from schemas.denoiser.dit import DiTConfig
from schemas.denoiser.latte import LatteConfig
from schemas.denoiser.pixart import KVCompression, PixArtConfig, Sampling
from schemas.errors import OsoraError

SIZES = {"hidden_size": 24, "num_heads": 2, "depth": 3, "mlp_ratio": 2.0}
TEXT = {"caption_channels": 10, "model_max_length": 5}
SIGMA = {"qk_norm": True, "kv_compress_config": KVCompression(kv_compress_layer=(0, 2))}


def build(name: str, **changes: object) -> DiT | Latte | PixArt:
    torch.manual_seed(0)
    match name:
        case "dit":
            return DiT(DiTConfig.model_validate(SIZES | {"condition": "label_5"} | changes))
        case "latte":
            return Latte(LatteConfig.model_validate(SIZES | {"caption_channels": 10} | changes))
        case "pixart-ms":
            return PixArt(PixArtConfig.model_validate(SIZES | TEXT | {"multi_scale": True} | changes))
        case _:
            return PixArt(PixArtConfig.model_validate(SIZES | TEXT | SIGMA | changes))


def inputs(model: DiT | Latte | PixArt, size: tuple[int, int, int] = (2, 8, 8)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = {"x_BCTHW": torch.randn(2, 4, *size, generator=generator), "timesteps_B": torch.tensor([20.0, 900.0])}
    if isinstance(model, DiT):
        return made | {"labels_B": torch.tensor([1, 4])}
    text_BLD = torch.randn(2, 1 if isinstance(model, Latte) else 5, 10, generator=generator)
    sizes = {
        name: torch.tensor([64.0, 96.0]) for name in ("height_B", "width_B", "aspect_B") if name in model.conditions
    }
    return made | {"text_BLD": text_BLD} | sizes


def stirred(model: nn.Module) -> nn.Module:
    """Leave no weight at zero, where much of a model has no effect."""
    generator = torch.Generator().manual_seed(2)
    for tensor in model.state_dict().values():
        tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return model.eval()


FAMILIES = ("dit", "latte", "pixart-ms", "pixart-sigma")


@pytest.mark.parametrize("name", FAMILIES)
def test_training_lowers_the_loss(name: str) -> None:
    model = build(name, depth=3 if name == "pixart-sigma" else 2)
    given = inputs(model, (2, 4, 4))
    target = torch.randn(2, 8, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = (model(**given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(target.square().mean().item())  # an untrained model says nothing
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_recomputing_changes_no_gradient(name: str) -> None:
    model = stirred(build(name))
    model(**inputs(model)).square().sum().backward()
    want = {key: weight.grad.clone() for key, weight in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing(3, 0, every=2)
    assert list(model.recomputed) == [0, 2]
    model(**inputs(model)).square().sum().backward()
    for key, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, want[key], msg=key)


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_keeps_its_dtype_and_odd_sizes_their_size(name: str) -> None:
    model = stirred(build(name))
    given = inputs(model, (1, 7, 9))
    want = model(**given)
    assert want.shape == (2, 8, 1, 7, 9)
    model.bfloat16()
    got = model(**given)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=0.1 * want.abs().max().item(), rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_may_have_an_odd_width(name: str) -> None:
    model = build(name, hidden_size=36, num_heads=4)
    assert model(**inputs(model)).shape == (2, 8, 2, 8, 8)


@pytest.mark.parametrize("name", FAMILIES)
def test_dropped_rows_have_the_null_condition(name: str) -> None:
    model = stirred(build(name))
    given = inputs(model)
    got = model(**given, drop_B=torch.tensor([True, False]))
    if "labels_B" in given:
        given["labels_B"] = torch.tensor([5, 4])
    else:
        given["text_BLD"] = torch.stack([model.y_embedder.y_embedding, given["text_BLD"][1]])
    torch.testing.assert_close(got, model(**given))


def test_masked_text_is_as_if_it_were_not_there() -> None:
    model = stirred(build("pixart-sigma"))
    given = inputs(model)
    mask = torch.tensor([[False, True, True, False, False]]).expand(2, -1)
    got = model(**given, text_mask_BL=mask)
    torch.testing.assert_close(got, model(**given | {"text_BLD": given["text_BLD"][:, 1:3]}))


def test_latte_looks_within_frames_first_and_then_across_them() -> None:
    model = stirred(build("latte", depth=1))
    given = inputs(model)
    want = model(**given)
    given["x_BCTHW"][:, :, 1] += 1
    torch.testing.assert_close(model(**given)[:, :, 0], want[:, :, 0])
    deeper = stirred(build("latte", depth=2))
    want = deeper(**given)
    given["x_BCTHW"][:, :, 1] += 1
    assert (deeper(**given)[:, :, 0] - want[:, :, 0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [("ave", [0, 2, 8, 10, 20, 22, 28, 30]), ("uniform_every", list(range(0, 40, 2)))],
)
def test_compression_picks_tokens_of_each_frame(sampling: Sampling, kept: list[int]) -> None:
    layer = CompressedAttention(8, 2, qk_norm=False, sampling=sampling, factor=2)
    tokens = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(1))
    # Two frames of 5 rows and 4 columns: the fifth row fills no square.
    torch.testing.assert_close(layer.compress(tokens, (2, 5, 4)), tokens[:, kept])


def test_a_new_convolution_takes_the_mean_of_a_square() -> None:
    layer = CompressedAttention(8, 2, qk_norm=False, sampling="conv", factor=2)
    tokens = torch.randn(1, 32, 8, generator=torch.Generator().manual_seed(1))
    mean = tokens.view(1, 2, 2, 2, 2, 2, 8).mean((3, 5)).flatten(1, 3)
    want = nn.functional.layer_norm(mean, (8,))
    torch.testing.assert_close(layer.compress(tokens, (2, 4, 4)), want)


def test_frozen_text_does_not_train() -> None:
    model = build("pixart-sigma", freeze="text")
    frozen = {key for key, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {key for key in model.state_dict() if ".cross_attn." in key}


@pytest.mark.parametrize("name", FAMILIES)
def test_published_weights_load(name: str) -> None:
    model = stirred(build(name))
    published = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    published["x_embedder.proj.weight"] = published["x_embedder.proj.weight"].squeeze(2)
    published["pos_embed"] = torch.zeros(1, 16, 24)
    other = build(name)
    fit_weights(other, other.as_own(published), "published.pth")
    torch.testing.assert_close(dict(other.state_dict()), dict(model.state_dict()))


def test_an_empty_caption_of_another_length_is_cut_or_goes_on() -> None:
    model = build("pixart-sigma")
    null_LD = model.y_embedder.y_embedding
    shorter = build("pixart-sigma", model_max_length=3).as_own(model.state_dict())
    longer = build("pixart-sigma", model_max_length=7).as_own(model.state_dict())
    torch.testing.assert_close(shorter["y_embedder.y_embedding"], null_LD[:3])
    torch.testing.assert_close(longer["y_embedder.y_embedding"], null_LD[[0, 1, 2, 3, 4, 4, 4]])


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_tell_the_config(name: str) -> None:
    model = build(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if name == "latte":
        shapes["temp_embed"] = (1, 16, 24)
    found = [recognise(shapes) for recognise in (recognise_dit, recognise_latte, recognise_pixart)]
    (config,) = [config for config in found if config is not None]
    if "kv_compress_config" in config:
        config["kv_compress_config"] = KVCompression(**config["kv_compress_config"])
    assert type(model.config).model_validate({"num_heads": 2} | config) == model.config


def test_what_a_model_does_not_take_is_refused() -> None:
    label, text, plain, multi = build("dit"), build("latte"), build("pixart-sigma"), build("pixart-ms")
    given = {"x_BCTHW": torch.zeros(1, 4, 1, 4, 4), "timesteps_B": torch.zeros(1)}
    token = torch.zeros(1, 1, 10)
    with pytest.raises(ValueError, match="takes labels_B"):
        label(**given, text_BLD=token)
    with pytest.raises(ValueError, match="takes text_BLD"):
        text(**given)
    with pytest.raises(ValueError, match="takes none of height_B"):
        plain(**given, text_BLD=token, height_B=torch.ones(1))
    with pytest.raises(ValueError, match="needs height_B"):
        multi(**given, text_BLD=token, height_B=torch.ones(1))
    with pytest.raises(ValueError, match="no null class"):
        build("dit", class_dropout_prob=0.0)(**given, labels_B=torch.zeros(1).long(), drop_B=torch.ones(1).bool())
    assert multi.conditions - plain.conditions == {"height_B", "width_B", "aspect_B"}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dit", {"num_heads": 5}, "no multiple of model.num_heads"),
        ("latte", {"hidden_size": 18}, "no multiple of 4"),
        ("pixart-ms", {"hidden_size": 32}, "a third of it each"),
        ("pixart-sigma", {"depth": 2}, "kv_compress_layer has 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        build(name, **changes)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("dit", {"condition": "text"}, "condition"),
        ("dit", {"condition": "label_6"}, "condition"),
        ("dit", {"learn_sigma": False}, "learn_sigma"),
        ("latte", {"depth": 2}, "depth"),
        ("latte", {"patch_size": (2, 2, 2)}, "patch_size"),
        ("pixart-ms", {"multi_scale": False}, "multi_scale"),
        ("pixart-ms", {"qk_norm": True}, "qk_norm"),
        ("pixart-sigma", {"num_heads": 4}, "num_heads"),
        ("pixart-sigma", {"model_max_length": 6}, "model_max_length"),
        ("pixart-sigma", {"kv_compress_config": KVCompression(kv_compress_layer=(0,))}, "kv_compress_config"),
        ("pixart-sigma", {"hidden_size": 48}, "hidden_size"),
    ],
)
def test_a_misfit_names_the_key_behind_it(name: str, changes: dict[str, object], key: str) -> None:
    with pytest.raises(OsoraError, match=f"Likely cause: `model.{key}`"):
        check_fit(build(name, **changes), build(name).state_dict(), "other.pt")


def test_texts_take_the_place_of_classes() -> None:
    published = {key: tensor.clone() for key, tensor in stirred(build("dit")).state_dict().items()}
    model = build("dit", condition="text", caption_channels=10)
    start = model.y_embedder.y_proj.fc1.weight.clone()
    with pytest.raises(OsoraError, match="missing from the file"):
        fit_weights(model, model.as_own(published), "classes.pt")
    fit_weights(model, model.as_own(published), "classes.pt", allow_missing=["y_embedder.*"])
    assert torch.equal(model.y_embedder.y_proj.fc1.weight, start)
    assert torch.equal(model.blocks[0].attn.qkv.weight, published["blocks.0.attn.qkv.weight"])
