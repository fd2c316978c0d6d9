import pytest
import torch
from torch import Tensor

from opensora_models.diffusion.guidance import (
    GuidanceScales,
    branch_weights,
    combine,
    image_ramp,
    oscillate,
    step_scales,
)

DEFAULT = GuidanceScales(text=7.5, image=3.0, text_oscillates=True, image_oscillates=True, image_grows_over_frames=True)
FRAMES, TOKENS = 4, 6


def evaluations(scales: GuidanceScales, steps: int, frames: int, *, has_condition: bool) -> int:
    return sum(
        len(branch_weights(*step_scales(scales, step, steps, frames), has_condition=has_condition))
        for step in range(steps)
    )


def test_fifty_steps_need_80_evaluations_for_text_and_110_for_an_image() -> None:
    assert evaluations(DEFAULT, 50, 33, has_condition=False) == 80
    assert evaluations(DEFAULT, 50, 33, has_condition=True) == 110


def test_without_guidance_only_the_caption_counts() -> None:
    weights = branch_weights(1.0, torch.ones(FRAMES), has_condition=True)
    assert list(weights) == ["caption"]
    assert torch.equal(weights["caption"], torch.ones(FRAMES))


def test_equal_scales_need_no_branch_with_negative_prompt_and_condition() -> None:
    assert list(branch_weights(3.0, torch.full((FRAMES,), 3.0), has_condition=True)) == [
        "caption",
        "negative_unconditioned",
    ]


def test_a_single_frame_has_image_scale_one_under_the_ramp() -> None:
    text, image = step_scales(DEFAULT, 0, 50, 1)
    assert image.tolist() == [1.0]
    assert list(branch_weights(text, image, has_condition=True)) == ["caption", "negative"]


@pytest.mark.parametrize("step", [0, 9, 10, 11, 12, 13])
@pytest.mark.parametrize(
    "scales", [DEFAULT, GuidanceScales(4.0, 2.0), GuidanceScales(5.0, 1.0), GuidanceScales(0.0, 0.5)]
)
def test_the_needed_branches_give_the_full_sum(scales: GuidanceScales, step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    c, u, u2 = (torch.randn(2, FRAMES * TOKENS, 3, generator=draw) for _ in range(3))
    text, image_T = step_scales(scales, step, 20, FRAMES)
    ramp_N1 = image_T.repeat_interleave(TOKENS)[:, None]
    full = u2 + ramp_N1 * (u - u2) + text * (c - u)
    assert torch.allclose(guided(text, image_T, c, u, u2), full, atol=1e-5)


def test_without_a_condition_both_negative_branches_are_one() -> None:
    draw = torch.Generator().manual_seed(0)
    c, u = (torch.randn(2, FRAMES * TOKENS, 3, generator=draw) for _ in range(2))
    text, image_T = step_scales(DEFAULT, 0, 20, FRAMES)
    weights = branch_weights(text, image_T, has_condition=False)
    got = combine({"caption": c, "negative": u}, weights)
    assert torch.allclose(got, u + text * (c - u), atol=1e-5)


def guided(text: float, image_T: Tensor, c: Tensor, u: Tensor, u2: Tensor) -> Tensor:
    weights = branch_weights(text, image_T, has_condition=True)
    every = {"caption": c, "negative": u, "negative_unconditioned": u2}
    return combine({branch: every[branch] for branch in weights}, weights)


def test_low_precision_velocities_are_added_in_float32() -> None:
    velocity = torch.ones(1, 2, 1, dtype=torch.bfloat16)
    weights = branch_weights(7.53, torch.ones(2), has_condition=False)
    got = combine({"caption": velocity, "negative": velocity}, weights)
    assert got.dtype == torch.float32
    assert torch.allclose(got, torch.ones(1, 2, 1))


def test_oscillation_spares_the_first_steps_and_even_ones() -> None:
    assert [oscillate(3.0, step) for step in range(9, 14)] == [3.0, 3.0, 1.0, 3.0, 1.0]


def test_the_ramp_grows_over_frames_and_falls_over_steps() -> None:
    assert image_ramp(3.0, 0, 10, 5).tolist() == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])
    assert image_ramp(3.0, 5, 10, 3).tolist() == pytest.approx([1.0, 1.5, 2.0])
