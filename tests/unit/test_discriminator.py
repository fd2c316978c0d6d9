from pathlib import Path

import pytest
import torch

from opensora_cli.training.adversary import build_opponent
from opensora_cli.training.draws import keyed_generator
from opensora_models.discriminator.model import PatchDiscriminator3D, init_discriminator
from opensora_models.weights import save_weights
from schemas.discriminator import DiscriminatorConfig
from schemas.errors import OsoraError

CPU = torch.device("cpu")


def discriminator(**config: object) -> PatchDiscriminator3D:
    model = PatchDiscriminator3D(DiscriminatorConfig.model_validate({"ndf": 4, "n_layers": 2, **config}))
    init_discriminator(model, keyed_generator("weights"))
    return model


def test_dropout_draws_from_the_callers_generator_alone() -> None:
    model = discriminator(dropout=0.5)
    x = torch.randn(2, 3, 5, 16, 16, generator=keyed_generator("x"))
    before = torch.get_rng_state()
    first, again = model(x, keyed_generator("a")), model(x, keyed_generator("a"))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(x, keyed_generator("b")))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="needs a generator"):
        model(x)
    model.eval()
    assert torch.equal(model(x), model(x, keyed_generator("a")))


def test_dropout_keeps_the_mean() -> None:
    from opensora_models.discriminator.model import KeyedDropout

    x = KeyedDropout(0.25)(torch.ones(100_000), keyed_generator("x"))
    assert float((x == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(x.mean()) == pytest.approx(1.0, abs=0.01)


def test_images_and_clips_are_judged_patch_by_patch() -> None:
    model = discriminator().eval()
    assert model(torch.zeros(1, 3, 9, 32, 48)).shape == (1, 1, 3, 8, 12)
    assert model(torch.zeros(1, 3, 1, 32, 48)).shape == (1, 1, 1, 8, 12)


@pytest.mark.parametrize(("change", "key"), [({"n_layers": 3}, "discriminator.n_layers"), ({"ndf": 8}, "ndf")])
def test_weights_that_do_not_fit_name_the_key(tmp_path: Path, change: dict[str, int], key: str) -> None:
    save_weights(discriminator().state_dict(), tmp_path / "adversary.safetensors")
    config = DiscriminatorConfig.model_validate(
        {"ndf": 4, "n_layers": 2, "from_pretrained": str(tmp_path / "adversary.safetensors"), **change}
    )
    with pytest.raises(OsoraError, match=key):
        build_opponent(config, 0, CPU)


def test_a_checkpoints_discriminator_is_taken_up_again(tmp_path: Path) -> None:
    trained = discriminator()
    save_weights(trained.state_dict(), tmp_path / "adversary.safetensors")
    config = DiscriminatorConfig(ndf=4, n_layers=2, from_pretrained=str(tmp_path))
    loaded = build_opponent(config, 0, CPU).module
    for name, tensor in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
