"""Cutting pictures to size, where no recorded pixels say how."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opensora_cli.data.transforms import CropDraw, TransformName, cut_of, transform_image, transform_video

sides = st.integers(8, 300)
shares = st.floats(0, 1, exclude_max=True)


@given(
    name=st.sampled_from(["resize_crop", "center", "rand_size_crop", "center_scaled"]),
    size=st.tuples(sides, sides),
    to=st.tuples(sides, sides),
    image=st.booleans(),
    draw=st.builds(CropDraw, shares, shares, shares),
)
def test_a_cut_covers_its_target(
    name: TransformName, size: tuple[int, int], to: tuple[int, int], image: bool, draw: CropDraw
) -> None:
    cut = cut_of(name, *size, *to, image=image, draw=draw)
    assert 0 <= cut.top <= cut.height - to[0]
    assert 0 <= cut.left <= cut.width - to[1]


@pytest.mark.parametrize("name", ["resize_crop", "center", "rand_size_crop", "center_scaled"])
def test_frames_one_by_one_are_the_same_as_together(name: TransformName) -> None:
    x_THWC = torch.randint(0, 256, (4, 37, 53, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = transform_video(x_THWC, name, 16, 24)
    assert torch.equal(together, torch.cat([transform_video(x_THWC[i : i + 1], name, 16, 24) for i in range(4)]))


def test_range() -> None:
    x_THWC = torch.stack([torch.zeros(20, 20, 3), torch.full((20, 20, 3), 255)]).to(torch.uint8)
    assert transform_video(x_THWC, "resize_crop", 16, 16).aminmax() == (-1, 1)
    assert transform_image(x_THWC[1], "center", 16, 16).unique().tolist() == [1]


def test_random_crops_go_from_the_whole_picture_to_its_own_pixels() -> None:
    random = torch.Generator().manual_seed(0)
    draws = [CropDraw(*torch.rand(3, generator=random).tolist()) for _ in range(500)]
    cuts = [cut_of("rand_size_crop", 90, 160, 32, 32, image=False, draw=draw) for draw in draws]
    heights = [cut.height for cut in cuts]
    assert (min(heights), max(heights)) == (32, 90)
    assert 55 < sum(heights) / len(heights) < 67
    edges = {(cut.top == 0, cut.top == cut.height - 32) for cut in cuts if cut.height > 34}
    assert edges == {(True, False), (False, True), (False, False)}
    assert all(abs(cut.width - cut.height * 160 / 90) < 1.5 for cut in cuts)


def test_a_random_crop_of_a_small_picture_only_moves() -> None:
    cuts = [
        cut_of("rand_size_crop", 16, 40, 32, 32, image=True, draw=CropDraw(0.7, 0.5, left)) for left in (0, 0.5, 0.999)
    ]
    assert cuts == [(32, 80, 0, 0), (32, 80, 0, 24), (32, 80, 0, 48)]


def test_a_random_crop_at_full_size_copies_pixels() -> None:
    x_THWC = torch.randint(0, 256, (1, 40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    almost_one = 1 - 2**-53
    crop_TCHW = transform_video(x_THWC, "rand_size_crop", 16, 24, CropDraw(almost_one, 0, almost_one))
    assert torch.allclose(crop_TCHW[0] * 127.5 + 127.5, x_THWC[0, :16, 36:].permute(2, 0, 1).float(), atol=1e-3)
