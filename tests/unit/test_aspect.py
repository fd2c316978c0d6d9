"""Sizes by resolution and aspect ratio, beyond the recorded tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensora_cli.data.aspect import aspect_table, closest_ratio, get_image_size, pixel_count, ratio_borders
from schemas.errors import OsoraError


@given(
    lines=st.integers(32, 1200),
    unit=st.sampled_from(["px", "p"]),
    compression=st.sampled_from([8, 16, 32]),
    training=st.booleans(),
)
def test_sizes_are_whole_tokens_near_the_budget(lines: int, unit: str, compression: int, training: bool) -> None:
    name = f"{lines}{unit}"
    try:
        table = aspect_table(name, compression, training)
    except OsoraError:
        assert lines < 3 * compression
        return
    for height, width in table.values():
        assert height % compression == width % compression == 0
        assert training or height * width <= pixel_count(name)


@given(height=st.integers(16, 4000), width=st.integers(16, 4000))
def test_borders_give_the_closest_ratio(height: int, width: int) -> None:
    table = aspect_table("512px")
    borders, names = ratio_borders(table)
    got = names[sum(border < height / width for border in borders)]
    distance = {name: abs(height / width - size) for name, size in zip(names, midpoints(table, names), strict=True)}
    assert distance[got] == pytest.approx(min(distance.values()))
    assert distance[closest_ratio(height, width, table)] == min(distance.values())


def midpoints(table: dict[str, tuple[int, int]], names: list[str]) -> list[float]:
    return [float(name.split(":")[1]) / float(name.split(":")[0]) for name in names if name in table]


def test_compression_is_a_parameter() -> None:
    assert get_image_size("256px", "16:9", 16) == (192, 336)
    assert get_image_size("256px", "16:9", 32) == (192, 320)


@pytest.mark.parametrize(
    ("resolution", "says"),
    [
        ("256", "pixel budget such as 256px"),
        ("px", "pixel budget such as 256px"),
        ("256px_min", "_max or _ar16:9"),
        ("256px_ar7:1", "no size for 7:1"),
        ("8px", "smaller than one token of 16 pixels"),
    ],
)
def test_a_name_that_is_no_resolution(resolution: str, says: str) -> None:
    with pytest.raises(OsoraError, match=says):
        aspect_table(resolution)


def test_an_unknown_ratio_lists_the_ratios_there_are() -> None:
    with pytest.raises(OsoraError, match=r"'5:4'.*16:9"):
        get_image_size("256px", "5:4")


def test_changing_a_returned_table_changes_nothing() -> None:
    aspect_table("256px").clear()
    assert aspect_table("256px")
