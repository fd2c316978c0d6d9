import pytest
import torch

from opensora_models.diffusion.schedule import clip_shift, get_schedule, linear_shift, time_shift


def test_the_line_goes_through_both_points() -> None:
    assert linear_shift(256) == pytest.approx(1.0)
    assert linear_shift(4096) == pytest.approx(3.0)


def test_times_fall_from_noise_to_data() -> None:
    times = get_schedule(50, 252, 33)
    assert len(times) == 51
    assert times[0].item() == pytest.approx(1.0)
    assert times[-1].item() == 0.0
    assert (times.diff() < 0).all()


def test_larger_and_longer_clips_stay_longer_near_noise() -> None:
    small, large, longer = (get_schedule(10, tokens, frames)[5] for tokens, frames in ((256, 1), (4096, 1), (256, 33)))
    assert small == pytest.approx(0.5)
    assert large > small
    assert longer > small


def test_without_shift_times_are_even() -> None:
    assert torch.equal(get_schedule(4, 4096, 33, shift=False), torch.linspace(1, 0, 5))


def test_a_given_shift_takes_the_place_of_the_clips() -> None:
    assert torch.allclose(get_schedule(4, 4096, 33, shift_alpha=1.0), torch.linspace(1, 0, 5))


def test_shift_multiplies_the_odds() -> None:
    assert time_shift(3.0, 0.5) == pytest.approx(0.75)  # odds 1 become odds 3
    assert clip_shift(256, 9) == pytest.approx(3.0)
