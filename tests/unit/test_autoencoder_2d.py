"""The image autoencoder: its interface."""

import pytest
import torch
from torch import Tensor

from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.weights import fit_weights
from schemas.autoencoder import AutoEncoder2DConfig
from schemas.errors import OsoraError

SIZES = {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "z_channels": 4}


def build(**changes: object) -> AutoEncoder2D:
    torch.manual_seed(5)
    return AutoEncoder2D(AutoEncoder2DConfig.model_validate(SIZES | changes)).eval()


def clip(frames: int, height: int = 12, width: int = 16) -> Tensor:
    return torch.rand(2, 3, frames, height, width, generator=torch.Generator().manual_seed(6)) * 2 - 1


def test_sizes_are_those_it_announces() -> None:
    ae = build()
    assert (ae.strides, ae.causal, ae.latent_channels) == ((1, 2, 2), False, 4)
    z = ae.encode(clip(3, 13, 16))
    assert z.shape == (2, 4, *ae.latent_size(3, 13, 16))
    assert ae.decode(z).shape == (2, 3, 3, 12, 16)


def test_encoding_draws_only_when_asked() -> None:
    ae, x = build(), clip(2)
    config, posterior = ae.config, ae.posterior(x)
    torch.testing.assert_close(ae.encode(x), config.scale_factor * (posterior.mean - config.shift_factor))
    one, same, other = (ae.encode(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    reconstruction, drawn = ae(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.moments, posterior.moments)
    torch.testing.assert_close(reconstruction, ae.decode(one))


def test_frames_are_independent_and_one_by_one_is_all_at_once() -> None:
    ae, x = build(), clip(3)
    z = ae.encode(x)
    torch.testing.assert_close(ae.encode(x[:, :, 1:2]), z[:, :, 1:2], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ae.encode(x), z.detach(), atol=1e-5, rtol=1e-4)


def test_widths_must_suit_the_norms() -> None:
    with pytest.raises(OsoraError, match=r"ae\.ch = 24, .* 24 channels is no multiple of the 32"):
        build(ch=24)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_res_blocks": 2}, "num_res_blocks"),
        ({"ch": 64}, "ch"),
        ({"z_channels": 8}, "z_channels"),
        ({"ch_mult": (1, 2, 2)}, "ch_mult"),
    ],
)
def test_weights_of_another_shape_name_the_likely_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(OsoraError, match=rf"Likely cause: `ae\.{key}`"):
        fit_weights(build(), build(**change).state_dict(), "x")
