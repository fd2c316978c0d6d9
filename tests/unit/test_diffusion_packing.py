import pytest
import torch

from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack
from opensora_models.diffusion.noise import latent_noise, latent_side


@pytest.mark.parametrize("patch", [1, 2])
def test_unpack_undoes_pack(patch: int) -> None:
    latent = torch.arange(2 * 3 * 5 * 4 * 6.0).view(2, 3, 5, 4, 6)
    tokens = pack(latent, patch)
    assert tokens.shape == (2, 5 * 4 * 6 // patch**2, 3 * patch**2)
    assert torch.equal(unpack(tokens, 5, 4, 6, patch), latent)


def test_tokens_run_over_frames_rows_columns_and_features_over_channels_first() -> None:
    latent = torch.zeros(1, 2, 3, 4, 4)
    latent[0, 1, 2, 1, 3] = 1  # channel 1, frame 2, second row and column of the patch in row 0, column 1
    tokens = pack(latent, 2)
    assert tokens.nonzero().tolist() == [[0, 2 * 4 + 1, 1 * 4 + 1 * 2 + 1]]


def test_ids_name_the_place_of_each_token() -> None:
    ids = image_ids(2, 4, 6, 2, batch=3)
    assert ids.shape == (3, 12, 3)
    assert ids[1, 7].tolist() == [1, 0, 1]
    assert not text_ids(5, batch=3).any()


def test_a_side_that_is_no_whole_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 x 4 cannot be cut into patches of 2 x 2"):
        pack(torch.zeros(1, 1, 1, 3, 4), 2)


@pytest.mark.parametrize(("pixels", "stride", "patch", "side"), [(40, 8, 2, 6), (32, 8, 2, 4), (96, 32, 1, 3)])
def test_latent_sides_are_whole_patches(pixels: int, stride: int, patch: int, side: int) -> None:
    assert latent_side(pixels, stride, patch) == side


def test_noise_depends_on_its_generator_alone() -> None:
    def draw(seed: int) -> torch.Tensor:
        return latent_noise(
            torch.Generator().manual_seed(seed),
            channels=4,
            latent_frames=3,
            height=32,
            width=48,
            spatial_stride=8,
            patch_size=2,
        )

    before = torch.random.get_rng_state()
    first = draw(7)
    assert first.shape == (1, 4, 3, 4, 6)
    assert torch.equal(first, draw(7))
    assert not torch.equal(first, draw(8))
    assert torch.equal(before, torch.random.get_rng_state())
