"""Prompts of Open-Sora 1.x that cannot be read say why."""

import pytest

from opensora_cli.sampling.prompts_v1 import PromptParts, join_loops, prompt_at_loop, split_loops, split_references
from schemas.errors import OsoraError


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ('a cat {"reference_path": "x.png"', "is no JSON"),
        ('a cat {"ref": "x.png"}', "nothing reads 'ref'"),
        ('a cat {"mask_strategy": 0}', "mask_strategy is no text"),
        ("a {cat}", "is no JSON"),
    ],
)
def test_json_that_is_wrong(prompt: str, message: str) -> None:
    with pytest.raises(OsoraError) as error:
        split_references(prompt)
    assert message in str(error.value)
    assert '{"reference_path": "x.png", "mask_strategy": "0"}' in str(error.value)


def test_json_may_have_braces_of_its_own() -> None:
    assert split_references('t {"reference_path": "a{1}.png;b.png"}') == PromptParts("t ", "a{1}.png;b.png")


@pytest.mark.parametrize("prompt", ["|0|one|two|three", "|0|one|1", "|0|one|2|two|1|three", "|0|one|0|two"])
def test_loops_that_are_no_rising_numbers(prompt: str) -> None:
    with pytest.raises(OsoraError, match=r"loop"):
        prompt_at_loop(prompt, 0)


def test_loops_come_back_together() -> None:
    prompt = "|0|one|2|two, and more|5|three"
    assert join_loops(*split_loops(prompt)) == prompt
    assert [prompt_at_loop(prompt, loop) for loop in (1, 2, 4, 9)] == ["one", "two, and more", "two, and more", "three"]
