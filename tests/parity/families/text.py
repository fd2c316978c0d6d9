"""Prompt helpers of sampling."""

from collections.abc import Iterator

from opensora_cli.data.captions import add_fps, add_motion_score, ensure_period, has_fps
from tests.parity.case import Case


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    table = case.json("helpers.json")
    for texts, fps, want in table["add_fps_info_to_text"]:
        yield f"add_fps.{fps}", [add_fps(text, fps) for text in texts], want
    for texts, score, want in table["add_motion_score_to_text"]:
        yield f"add_motion_score.{score}", [add_motion_score(text, score) for text in texts], want
    yield "ensure_period", [[text, ensure_period(text)] for text, _ in table["ensure_period"]], table["ensure_period"]
    yield "has_fps", [[text, has_fps(text)] for text, _ in table["check_fps_added"]], table["check_fps_added"]
