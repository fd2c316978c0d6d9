"""Cutting pictures to size, where no recorded pixels say how."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opensora_cli.data.transforms import TransformName, cut_of, transform_image, transform_video

sides = st.integers(8, 300)


@given(
    name=st.sampled_from(["resize_crop", "center"]),
    size=st.tuples(sides, sides),
    to=st.tuples(sides, sides),
    image=st.booleans(),
)
def test_a_cut_covers_its_target(name: TransformName, size: tuple[int, int], to: tuple[int, int], image: bool) -> None:
    cut = cut_of(name, *size, *to, image=image)
    assert 0 <= cut.top <= cut.height - to[0]
    assert 0 <= cut.left <= cut.width - to[1]


@pytest.mark.parametrize("name", ["resize_crop", "center"])
def test_frames_one_by_one_are_the_same_as_together(name: TransformName) -> None:
    x_THWC = torch.randint(0, 256, (4, 37, 53, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = transform_video(x_THWC, name, 16, 24)
    assert torch.equal(together, torch.cat([transform_video(x_THWC[i : i + 1], name, 16, 24) for i in range(4)]))


def test_range() -> None:
    x_THWC = torch.stack([torch.zeros(20, 20, 3), torch.full((20, 20, 3), 255)]).to(torch.uint8)
    assert transform_video(x_THWC, "resize_crop", 16, 16).aminmax() == (-1, 1)
    assert transform_image(x_THWC[1], "center", 16, 16).unique().tolist() == [1]
