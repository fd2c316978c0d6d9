"""Mask strategies: errors that say where, and the strategies that osora's conditions are."""

import pytest
import torch
from torch import Tensor

from opensora_models.diffusion.mask_strategy import (
    apply_strategies,
    chunk_frames,
    continue_loop,
    parse_strategy,
    strategy_of,
)
from schemas.condition import ConditionName
from schemas.errors import OsoraError


def clip(frames: int, first: int) -> Tensor:
    """Frame n of a reference is first + n in every place."""
    return (first + torch.arange(frames, dtype=torch.float32)).view(1, frames, 1, 1).expand(2, -1, 3, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0;0,x", "group 2: reference is 'x'; a whole number is expected"),
        ("0,0,0,0,1,half", "group 1: edit ratio is 'half'; a number is expected"),
        ("0,0,0,0,1,0,7", "group 1 has 7 numbers; at most six"),
        ("0;", "group 2: loop is ''"),
        ("0,0,0,0,0", "length from 1"),
        ("0,0,0,0,1,1.5", "between 0 and 1"),
        ("-1", "count from 0"),
    ],
)
def test_a_strategy_that_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(OsoraError) as error:
        parse_strategy(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("0,1", "no reference 1; the sample has 1"),
        ("0,0,0,10", "start is 10, but there are 10 latent frames. Use -10 to 9"),
        ("0,0,-4,0", "reference start is -4, but there are 3"),
    ],
)
def test_frames_that_are_not_there_are_named(strategy: str, message: str) -> None:
    with pytest.raises(OsoraError, match="sample 1, mask strategy") as error:
        apply_strategies(torch.zeros(2, 2, 10, 3, 3), [[], [clip(3, 5)]], ["", strategy])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "given", "want"),
    [
        ("t2v", 0, "..........|"),
        ("i2v_head", 1, "0.........|"),
        ("i2v_tail", 1, ".........0|"),
        ("i2v_loop", 1, "0........0|"),
        ("v2v_head", 4, "0000......|"),
        ("v2v_tail", 4, "......0000|"),
        ("v2v_head_easy", 9, "000000000.|"),
        ("v2v_tail_easy", 9, ".000000000|"),
    ],
)
def test_conditions_as_strategies(name: ConditionName, given: int, want: str) -> None:
    references = [clip(max(given, 1), 100), clip(max(given, 1), 200)][: 2 if name == "i2v_loop" else 1]
    z = torch.zeros(1, 2, 10, 3, 3)
    placed, share_BT = apply_strategies(z, [references], [strategy_of(name, 10, given)])
    assert "".join("." if share else "0" for share in share_BT[0]) + "|" == want
    assert not z.any()
    if name == "i2v_loop":
        assert placed[0, 0, :, 0, 0].tolist() == [100, *[0] * 8, 200]
    elif given:
        kept = placed[0, 0, share_BT[0] == 0, 0, 0]
        assert kept.tolist() == [100 + frame for frame in range(given)]


def test_tails_come_from_the_end_of_a_longer_reference() -> None:
    placed, _ = apply_strategies(torch.zeros(1, 2, 5, 3, 3), [[clip(9, 100)]], [strategy_of("v2v_tail", 5, 2)])
    assert placed[0, 0, :, 0, 0].tolist() == [0, 0, 0, 107, 108]


def test_a_clip_too_short_for_its_condition_is_refused_and_a_picture_is_given_nothing() -> None:
    with pytest.raises(ValueError, match="v2v_head gives 9 latent frames, but the clip has only 5"):
        strategy_of("v2v_head", 5, 9)
    assert strategy_of("i2v_head", 1, 1) == ""


def test_loops_continue_from_the_end_of_the_clip_before() -> None:
    made = clip(10, 50)[None]
    references, strategies = continue_loop([None], [None], made, loop=1, length=5, edit_ratio=0.25)
    placed, share_BT = apply_strategies(torch.zeros(1, 2, 10, 3, 3), references, strategies, loop=1, align=5)
    assert placed[0, 0, :, 0, 0].tolist() == [55, 56, 57, 58, 59, 0, 0, 0, 0, 0]
    assert share_BT[0].tolist() == [0.25] * 5 + [1] * 5
    again, longer = continue_loop(references, strategies, made, loop=2, length=5)
    assert (len(again[0]), len(references[0])) == (2, 1)
    assert longer == ["1,0,-5,0,5,0.25;2,1,-5,0,5,0.0"]


def test_only_whole_chunks_have_frames() -> None:
    with pytest.raises(ValueError, match=r"7 latent frames.*Use 5"):
        chunk_frames(7)
