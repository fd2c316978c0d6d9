import pytest
import torch

from opensora_models.diffusion.rectified_flow import (
    add_noise,
    draw_times,
    drop_text,
    fit_null_tokens,
    flow_loss,
    frames_in_loss,
    training_times,
    velocity_target,
)

SIZE = {"latent_frames": 9, "height": 16, "width": 24}


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, 4, generator=draw), torch.randn(2, 6, 4, generator=draw)


def test_time_one_is_noise_and_time_zero_is_data() -> None:
    data, noise = pair()
    assert torch.allclose(add_noise(data, noise, torch.ones(2), 1e-5), noise)
    assert torch.allclose(add_noise(data, noise, torch.zeros(2), 1e-5), data + 1e-5 * noise)


def test_the_target_is_the_slope_of_the_line() -> None:
    data, noise = (x.double() for x in pair())
    ends = [add_noise(data, noise, torch.full((2,), t, dtype=torch.float64), 0.01) for t in (0.25, 0.75)]
    assert torch.allclose((ends[1] - ends[0]) / 0.5, velocity_target(data, noise, 0.01))


def test_times_are_drawn_from_the_generator_and_shifted_towards_noise() -> None:
    def draw(seed: int) -> torch.Tensor:
        return draw_times(torch.Generator().manual_seed(seed), 512, **SIZE, patch_size=2)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert ((draw(1) > 0) & (draw(1) < 1)).all()
    assert draw(1).median() > 0.6  # without the shift it would be near 0.5


def test_tokens_are_counted_by_the_patch() -> None:
    normal = torch.zeros(1)
    whole = training_times(normal, latent_frames=1, height=32, width=32, patch_size=2)
    assert whole.item() == pytest.approx(0.5)  # 256 tokens: shift 1
    assert training_times(normal, latent_frames=1, height=64, width=64, patch_size=1).item() == pytest.approx(0.75)


def test_given_ends_do_not_count_but_given_insides_do() -> None:
    given = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]])
    counted = [[True] * 4, [False, True, True, True], [True, True, True, False], [False, True, True, False], [True] * 4]
    assert frames_in_loss(given).tolist() == counted


def test_the_loss_ignores_given_frames_and_averages_items_alike() -> None:
    pred, target = torch.zeros(2, 6, 4), torch.zeros(2, 6, 4)
    pred[0, :2] = 9.0  # frame 0 of 3, two tokens a frame
    pred[1, 2:] = 1.0
    given = torch.tensor([[1, 0, 0], [1, 0, 0]])
    assert flow_loss(pred, target, given).item() == pytest.approx((0.0 + 1.0) / 2)
    assert flow_loss(pred, target).item() == pytest.approx((81 / 3 + 2 / 3) / 2)


def test_an_item_that_was_given_everything_adds_nothing() -> None:
    pred = torch.ones(2, 2, 4)
    loss = flow_loss(pred, torch.zeros(2, 2, 4), torch.tensor([[1, 1], [0, 0]]))
    assert loss.item() == pytest.approx(0.5)


def test_the_loss_is_float32_in_low_precision() -> None:
    assert flow_loss(torch.ones(1, 2, 2, dtype=torch.bfloat16), torch.zeros(1, 2, 2)).dtype == torch.float32


def test_text_is_dropped_row_by_row() -> None:
    text, null = torch.ones(3, 2, 4), torch.zeros(1, 2, 4)
    kept = drop_text(text, null, torch.tensor([0.1, 0.4, 0.9]), 0.4)
    assert kept[:, 0, 0].tolist() == [0.0, 1.0, 1.0]
    assert torch.equal(drop_text(text, null, torch.zeros(3), 0.0), text)


def test_null_tokens_grow_by_their_last_and_never_shrink() -> None:
    null = torch.tensor([[[1.0], [2.0]]])
    assert fit_null_tokens(null, 4).flatten().tolist() == [1, 2, 2, 2]
    with pytest.raises(ValueError, match="the empty caption has 2 tokens, the captions have 1"):
        fit_null_tokens(null, 1)
