"""Captions where the recorded tables have no row."""

import math

import pytest

from opensora_cli.data.captions import add_fps, add_motion_score, training_caption


@pytest.mark.parametrize(
    ("fps", "limit", "score", "want"),
    [
        (24.0, None, None, "a cat"),
        (24.0, 999, None, "a cat"),
        (24.0, 998, None, "a cat 24.0 FPS."),
        (math.nan, 24, 3.0, "a cat 3 motion score."),
        (48.0, 24, 2.5, "a cat 24 FPS, 3 motion score."),
        (48.0, 24, math.nan, "a cat 24 FPS."),
    ],
)
def test_suffix(fps: float, limit: int | None, score: float | None, want: str) -> None:
    assert training_caption("a cat", fps, limit, score) == want


def test_a_prompt_gets_both() -> None:
    assert add_motion_score(add_fps("a cat", 24), 4) == "a cat. 24 FPS. 4 motion score."
