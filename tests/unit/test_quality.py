import numpy as np
import pytest
import torch

from opensora_cli.reconstruction.quality import Quality, grid, mean_quality, measure, side_by_side
from opensora_cli.training.draws import keyed_generator
from opensora_models.quality import psnr, ssim
from opensora_models.vae_loss.lpips import Lpips


def clips(*shape: int, key: str = "clips") -> torch.Tensor:
    return torch.rand(shape, generator=keyed_generator(key)) * 2 - 1


def test_psnr_of_a_known_error() -> None:
    x = torch.zeros(2, 3, 1, 4, 4)
    y = x.clone()
    y[0] += 0.2  # peak to peak 2: 20 log10(2 / 0.2)
    assert psnr(x, y).tolist() == pytest.approx([20.0, 10 * np.log10(4e12)], rel=1e-5)


def test_ssim_is_the_papers_formula_window_by_window() -> None:
    x, y = clips(1, 1, 1, 13, 12), clips(1, 1, 1, 13, 12, key="others")
    places = np.arange(11) - 5
    line = np.exp(-(places**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for top in range(3):
        for left in range(2):
            a, b = (clip[0, 0, 0, top : top + 11, left : left + 11].double().numpy() for clip in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            first = (2 * mean_a * mean_b + 0.02**2) / (mean_a**2 + mean_b**2 + 0.02**2)
            values.append(first * (2 * covariance + 0.06**2) / (variances + 0.06**2))
    assert float(ssim(x, y)) == pytest.approx(np.mean(values), abs=1e-5)


def test_ssim_of_equal_clips_is_one_and_small_pictures_have_a_small_window() -> None:
    x = clips(2, 3, 2, 8, 9)
    assert ssim(x, x).tolist() == pytest.approx([1.0, 1.0])
    assert float(ssim(x, clips(2, 3, 2, 8, 9, key="others")).max()) < 0.5


def test_each_clip_is_measured_for_itself_and_lpips_only_where_it_is_there() -> None:
    x, y = clips(2, 3, 2, 32, 32), clips(2, 3, 2, 32, 32)
    y[1] = 0.0
    plain = measure(x, y, None)
    assert [one.lpips for one in plain] == [None, None]
    assert plain[0].psnr_db > 100 > plain[1].psnr_db
    assert "lpips" not in plain[0].metrics()
    assert [one.lpips is not None for one in measure(x, y, Lpips((4, 4, 4, 4, 4)))] == [True, True]
    assert measure(x, y, Lpips((4, 4, 4, 4, 4)))[0].lpips == 0.0


def test_the_mean_is_over_clips() -> None:
    assert mean_quality([Quality(20.0, 0.5, 0.1), Quality(40.0, 0.7, 0.3)]) == Quality(
        30.0, pytest.approx(0.6), pytest.approx(0.2)
    )
    with pytest.raises(ValueError, match="no clips"):
        mean_quality([])


def test_originals_are_left_of_or_above_their_reconstructions() -> None:
    white, black = torch.ones(3, 7, 4, 6), -torch.ones(3, 7, 4, 6)
    pair = side_by_side(white, black)
    assert pair.shape == (3, 7, 4, 12)
    assert float(pair[..., :6].min()) == 1.0
    picture = grid(white, black, columns=3)
    assert picture.shape == (8, 18, 3)
    assert (picture[:4] == 255).all() and (picture[4:] == 0).all()
