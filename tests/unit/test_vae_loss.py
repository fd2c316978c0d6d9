from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from opensora_cli.training.draws import keyed_generator
from opensora_models.vae_loss.lpips import VGG16_FILE, Lpips, find_lpips, load_lpips
from opensora_models.vae_loss.reconstruction import negative_log_likelihood, outlier_penalty, reconstruction_loss
from schemas.errors import OsoraError

KEY = "vae_loss.lpips_from_pretrained"


def noise(*shape: int, key: str = "x") -> torch.Tensor:
    return torch.randn(shape, generator=keyed_generator(key))


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """The state dict of a full-width LPIPS with random weights, heads not negative."""
    state = Lpips().state_dict()
    return {name: noise(*t.shape, key=name).abs() / t[0].numel() for name, t in state.items() if "scaling" not in name}


def test_distances_are_sums_over_a_frame_and_means_over_frames() -> None:
    x, target = torch.zeros(2, 3, 5, 4, 6), torch.full((2, 3, 5, 4, 6), 0.5)
    assert float(reconstruction_loss(x, target, "l1")) == pytest.approx(0.5 * 3 * 4 * 6)
    assert float(reconstruction_loss(x, target, "l2")) == pytest.approx(0.25 * 3 * 4 * 6)


def test_the_log_variance_divides_the_distance_and_is_paid_for_by_every_value() -> None:
    assert float(negative_log_likelihood(torch.tensor(10.0), 4, 0.0)) == 10.0
    assert float(negative_log_likelihood(torch.tensor(10.0), 4, 0.5)) == pytest.approx(10 / 1.6487213 + 2.0)


def test_only_outliers_are_penalised_frame_by_frame() -> None:
    z = torch.zeros(1, 1, 2, 10, 10)
    z[0, 0, 0].view(-1)[::2] = 1.0  # deviation 0.5 around 0.5: nothing is further than 3 deviations
    assert float(outlier_penalty(z)) == 0.0
    z[0, 0, 1, 3, 3] = 100.0  # its frame has mean 1 and deviation sqrt(99)
    expected = (99 - 3 * 99**0.5) / 200
    assert float(outlier_penalty(z)) == pytest.approx(expected, rel=1e-5)


def test_equal_pictures_have_no_distance_and_the_distance_is_each_pairs_own(weights: dict[str, torch.Tensor]) -> None:
    model = Lpips()
    model.load_state_dict(weights, strict=False)
    a, b = noise(2, 3, 32, 32), noise(2, 3, 32, 32, key="y")
    b[0] = a[0]
    distance_B = model(a, b)
    assert float(distance_B[0]) == 0.0
    assert float(distance_B[1]) > 0.0


def test_missing_weights_are_an_error_that_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=rf"{KEY} = .*no LPIPS weights here.*PerceptualSimilarity.*{VGG16_FILE}"):
        load_lpips(str(tmp_path / "lpips.safetensors"), KEY)
    assert find_lpips("nobody/has-this-in-the-cache") is None


def test_a_hub_name_is_looked_up_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--somebody--lpips" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (tmp_path / "models--somebody--lpips" / "refs").mkdir()
    (tmp_path / "models--somebody--lpips" / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert find_lpips("somebody/lpips") == snapshot / "model.safetensors"
    assert find_lpips("somebody/else") is None


def test_heads_are_completed_by_the_vgg16_that_lies_beside_them(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    heads = {name: tensor for name, tensor in weights.items() if name.startswith("lin")}
    torch.save(heads, tmp_path / "vgg.pth")
    with pytest.raises(OsoraError, match="has the heads of LPIPS and not its VGG16"):
        load_lpips(str(tmp_path / "vgg.pth"), KEY)

    vgg16 = {f"features.{name.split('.', 2)[2]}": t for name, t in weights.items() if name.startswith("net.")}
    torch.save({**vgg16, "classifier.0.bias": torch.zeros(2)}, tmp_path / VGG16_FILE)
    save_file(weights, tmp_path / "whole.safetensors")
    halves, whole = load_lpips(str(tmp_path / "vgg.pth"), KEY), load_lpips(str(tmp_path / "whole.safetensors"), KEY)
    a, b = noise(1, 3, 32, 32), noise(1, 3, 32, 32, key="y")
    assert torch.equal(halves(a, b), whole(a, b))
    assert not any(p.requires_grad for p in whole.parameters())


def test_weights_of_something_else_do_not_load(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file({"net.conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(OsoraError, match="do not fit"):
        load_lpips(str(tmp_path / "other.safetensors"), KEY)
