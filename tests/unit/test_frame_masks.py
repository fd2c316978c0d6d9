"""Training masks: what each kind gives, for clips of every length."""

from collections import Counter
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opensora_models.diffusion.frame_masks import MaskDraws, draw_frame_masks, frame_mask, pick_mask
from schemas.frame_mask import FrameMaskName, MaskRatios

shares = st.floats(0, 1, exclude_max=True)
NAMES = get_args(FrameMaskName)


@given(st.sampled_from(NAMES), st.integers(1, 20), shares, shares, shares, st.integers(0, 99))
def test_something_is_always_left_to_denoise_and_pictures_are(
    name: FrameMaskName, frames: int, size: float, place: float, share: float, seed: int
) -> None:
    each = torch.rand(frames, generator=torch.Generator().manual_seed(seed))
    mask_T = frame_mask(name, MaskDraws(size, place, share, each))
    assert mask_T.shape == (frames,)
    assert mask_T.any()
    if frames == 1 or name == "identity":
        assert mask_T.all()
    elif name.startswith("quarter") and not name.endswith("head_tail"):
        assert 1 <= (~mask_T).sum() <= max(1, frames // 4)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("image_head", "01111111"),
        ("image_tail", "11111110"),
        ("image_head_tail", "01111110"),
        ("image_random", "11110111"),
        ("quarter_head", "00111111"),
        ("quarter_tail", "11111100"),
        ("quarter_head_tail", "00111100"),
        ("quarter_random", "11100111"),
        ("interpolate", "10101010"),
    ],
)
def test_what_each_kind_gives_of_eight_frames(name: FrameMaskName, want: str) -> None:
    mask_T = frame_mask(name, MaskDraws(size=0.7, place=0.5, share=0.5, frames=torch.zeros(8)))
    assert "".join(str(int(frame)) for frame in mask_T) == want


@pytest.mark.parametrize("frames", [2, 3])
def test_a_quarter_of_a_very_short_clip_is_one_frame(frames: int) -> None:
    mask_T = frame_mask("quarter_tail", MaskDraws(0.9, 0.9, 0.9, torch.ones(frames)))
    assert mask_T.tolist() == [True] * (frames - 1) + [False]


def test_kinds_are_drawn_as_often_as_their_ratios_say() -> None:
    ratios = MaskRatios(random=0.1, image_head=0.25).ratios()
    counts = Counter(pick_mask(ratios, number / 1000) for number in range(1000))
    assert counts == {"random": 100, "image_head": 250, "identity": 650}


def test_masks_depend_on_the_generator_alone() -> None:
    ratios = MaskRatios(random=0.5, quarter_random=0.5).ratios()
    one, two = (draw_frame_masks(ratios, 16, 12, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.dtype == torch.bool
    assert 0.2 < one.float().mean() < 0.95
    assert not torch.equal(one, draw_frame_masks(ratios, 16, 12, torch.Generator().manual_seed(4)))
