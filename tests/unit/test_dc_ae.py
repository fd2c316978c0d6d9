"""The deep-compression autoencoder: its interface, its tilings, and what it refuses."""

import pytest
import torch
from torch import Tensor

from opensora_models.dc_ae.model import DCAE
from opensora_models.weights import fit_weights
from schemas.autoencoder import DCAEConfig
from schemas.autoencoder.dc_ae import DCAEShape
from schemas.errors import OsoraError

STAGES = {
    "latent_channels": 8,
    "width_list": (8, 8, 16),
    "encoder_depth_list": (1, 1, 1),
    "decoder_depth_list": (1, 1, 1),
    "block_type": ("ResBlock",) * 3,
    "temporal_downsample": (True, True, False),
}
PICTURES = {"is_video": False, "temporal_downsample": (False,) * 3}


def build(stages: dict[str, object] | None = None, **keys: object) -> DCAE:
    torch.manual_seed(5)
    shape = DCAEShape.model_validate({**STAGES, **(stages or {})})
    return DCAE(DCAEConfig(model_name="custom", shape=shape, **keys)).eval()


def clip(frames: int, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(6)) * 2 - 1


@pytest.mark.parametrize("size", [(1, 16, 24), (8, 8, 8), (12, 20, 16)])
def test_sizes_are_those_it_announces(size: tuple[int, int, int]) -> None:
    ae = build()
    assert (ae.strides, ae.causal, ae.latent_channels) == ((4, 4, 4), False, 8)
    z = ae.encode(clip(*size))
    assert z.shape == (1, 8, *ae.latent_size(*size))
    assert ae.decode(z).shape == (1, 3, *size)


def test_nothing_is_drawn() -> None:
    ae, x = build(scaling_factor=0.5), clip(8)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(ae.encode(x, generator), ae.encode(x))
    torch.testing.assert_close(ae.encode(x), 2 * build().encode(x))
    reconstruction, posterior = ae(x, generator)
    assert posterior is None
    torch.testing.assert_close(reconstruction, build().decode(build().encode(x)))


def test_a_flavour_for_pictures_takes_frames_apart() -> None:
    ae, x = build(PICTURES), clip(3)
    z = ae.encode(x)
    assert (ae.strides, z.shape) == ((1, 4, 4), (1, 8, 3, 4, 6))
    torch.testing.assert_close(ae.decode(z)[:, :, 2:], ae.decode(ae.encode(x[:, :, 2:])))


@pytest.mark.parametrize(
    ("frames", "overlap", "last"), [(28, 0.25, 4), (40, 0.25, 4), (36, 0.5, 3), (20, 0.0, 2), (24, 0.25, 3)]
)
@torch.no_grad()
def test_tiles_of_time_lose_no_frame(frames: int, overlap: float, last: int) -> None:
    ae = build(use_temporal_tiling=True, temporal_tile_size=16, tile_overlap_factor=overlap)
    z = ae.encode(clip(frames))
    assert z.shape[2] == frames // 4
    out = ae.decode(z)
    assert out.shape[2] == frames
    # The end is that of the last tile of more than one latent frame, which is never decoded as a picture.
    torch.testing.assert_close(out[:, :, -4:], build().decode(z[:, :, -last:])[:, :, -4:], atol=1e-5, rtol=1e-4)


def test_tiles_are_exact_away_from_their_borders() -> None:
    ae, x = build(use_spatial_tiling=True, spatial_tile_size=64), clip(4, 64, 160)
    tiled, whole = ae.encode(x), build().encode(x)
    error_W = (tiled - whole)[..., :10, :].abs().amax((0, 1, 2, 3))
    # The encoder sees 22 pixels, 6 latents, to each side; tiles end behind latent 15 and begin at 12, 24, 36.
    exact = [*range(10), *range(18, 22), *range(30, 34)]
    assert error_W[exact].max() < 1e-5
    assert 1e-4 < error_W.max() < 0.5 * whole.abs().max()


@pytest.mark.parametrize("batch", [2, 5])
def test_tiles_together_are_tiles_apart(batch: int) -> None:
    keys = {"use_spatial_tiling": True, "spatial_tile_size": 16}
    x = clip(4, 40, 56)
    torch.testing.assert_close(build(**keys, tile_batch=batch).encode(x), build(**keys).encode(x), atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_weight() -> None:
    stages = {"width_list": (8, 32, 32), "block_type": ("ResBlock", "EViT_GLU", "EViTS5_GLU")}
    ae = build(stages)
    ae(clip(8), torch.Generator())[0].square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in ae.parameters())


@pytest.mark.parametrize(
    ("size", "message"), [((33, 16, 16), "33 frames.*multiples of 4.*32 or 36"), ((4, 18, 16), "18 rows")]
)
def test_sizes_that_do_not_fit_are_refused(size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        build().encode(clip(*size))


@pytest.mark.parametrize(
    ("stages", "keys", "message"),
    [
        ({"width_list": (8, 8)}, {}, "all must have one length"),
        ({"is_video": False}, {}, "pictures have no time"),
        ({"downsample": "ConvPixelUnshuffle"}, {}, r"ae\.shape\.downsample = .* is for pictures"),
        ({"encoder_depth_list": (1, 0, 1)}, {}, r"encoder_depth_list = \[1, 0, 1\]: only the first"),
        ({"block_type": ("ResBlock", "ResBlock", "EViT_GLU")}, {}, "EViT_GLU needs multiples of 32"),
        ({"latent_channels": 6}, {}, "6 does not divide the last"),
        ({"width_list": (8, 24, 48)}, {}, "stage 0 has 8 channels"),
        (
            {},
            {"use_spatial_tiling": True, "spatial_tile_size": 20},
            r"ae\.spatial_tile_size = 20: .* multiple of the 4",
        ),
    ],
)
def test_impossible_settings_are_explained(stages: dict[str, object], keys: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        build(stages, **keys)


@pytest.mark.parametrize(
    ("stages", "key"),
    [
        ({"latent_channels": 4}, "latent_channels"),
        ({"encoder_depth_list": (1, 2, 1)}, "encoder_depth_list"),
        ({"decoder_depth_list": (1, 2, 1)}, "decoder_depth_list"),
        ({"width_list": (8, 16, 16)}, "width_list"),
        (PICTURES, "is_video"),
    ],
)
def test_weights_of_another_shape_name_the_likely_key(stages: dict[str, object], key: str) -> None:
    with pytest.raises(OsoraError, match=rf"Likely cause: `ae\.shape\.{key}`"):
        fit_weights(build(), build(stages).state_dict(), "x")
