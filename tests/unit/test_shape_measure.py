"""The measure of the learning proof: right on real clips, and unmoved by what a caption says."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.shape_clips import FRAMES, all_clips, held_out_clips, training_clips
from benchmarks.shape_measure import Seen, look
from benchmarks.shape_scores import CHANCE, Score, psnr_db, right_words, word_scores
from opensora_cli.data.demo_clips import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SPEEDS,
    DemoClip,
    clip_frames,
    write_mp4,
)
from opensora_cli.data.video import read_clip


def said(clip: DemoClip) -> Seen:
    return Seen(clip.colour, clip.shape, clip.direction, clip.speed)


def test_drawn_clips_show_every_word_of_their_captions() -> None:
    clips = all_clips()[::7]
    assert [look(clip_frames(clip)) for clip in clips] == [said(clip) for clip in clips]


def test_so_do_their_files(tmp_path: Path) -> None:
    clips = held_out_clips()[::5]
    for clip in clips:
        write_mp4(tmp_path / "clip.mp4", clip_frames(clip), clip.fps)
        assert look(read_clip(str(tmp_path / "clip.mp4"), range(FRAMES)).numpy()) == said(clip)


def test_a_changed_clip_shows_other_words() -> None:
    frames = clip_frames(DemoClip("red", "triangle", "up", "fast", "black", (32, 32), 9, 8))
    assert look(frames) == Seen("red", "triangle", "up", "fast")
    assert look(frames[::-1]) == Seen("red", "triangle", "down", "fast")
    assert look(frames.transpose(0, 2, 1, 3)).direction == "left"
    assert look(frames[..., ::-1]).colour == "blue"
    assert look(np.repeat(frames[2:7], 2, axis=0)).speed == "slowly"


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_plain_clip_shows_nothing(level: int) -> None:
    assert look(np.full((9, 32, 32, 3), level, dtype=np.uint8)) == Seen()


def test_a_shape_that_is_gone_in_a_frame_is_nothing() -> None:
    frames = clip_frames(training_clips()[0])
    frames[4] = frames[4, 0, 0]
    assert look(frames) == Seen()


def test_noise_and_blur_change_nothing() -> None:
    rng = np.random.default_rng(0)
    for clip in held_out_clips()[::7]:
        frames = clip_frames(clip).astype(float)
        soft = (
            frames + np.roll(frames, 1, axis=1) + np.roll(frames, 1, axis=2) + np.roll(frames, (1, 1), axis=(1, 2))
        ) / 4
        noisy = np.clip(soft + rng.normal(0, 6, frames.shape), 0, 255).astype(np.uint8)
        assert look(noisy) == said(clip)


def test_a_quarter_is_held_out_with_every_word_on_both_sides() -> None:
    trained, held_out = training_clips(), held_out_clips()
    assert (len(trained), len(held_out)) == (216, 72)
    for words, kind in ((COLOURS, "colour"), (SHAPES, "shape"), (DIRECTIONS, "direction"), (SPEEDS, "speed")):
        for clips in (trained, held_out):
            found = [getattr(clip, kind) for clip in clips]
            assert set(found) == set(words)
            assert max(map(found.count, words)) <= 1.5 * min(map(found.count, words))
    assert {said(clip) for clip in trained}.isdisjoint({said(clip) for clip in held_out})  # whatever the background
    assert {clip.background for clip in held_out} == set(BACKGROUNDS)


def test_guessing_scores_chance_and_the_truth_scores_all() -> None:
    clips = all_clips()
    one = Seen("red", "circle", "up", "fast")
    assert right_words(clips, [one] * len(clips)) == pytest.approx(CHANCE)
    assert all(score.reached for score in word_scores("t2v", clips, [said(clip) for clip in clips]))
    assert not any(score.reached for score in word_scores("t2v", clips, [Seen()] * len(clips)))


def test_lines_of_the_table() -> None:
    assert Score("t2v colour", 0.979, 0.98, 1 / 6).line().split() == [
        "FAIL",
        "t2v",
        "colour",
        "97.9%",
        "98.0%",
        "16.7%",
    ]
    assert Score("i2v first frame", 31.02, 27.0).line().split() == [
        "ok",
        "i2v",
        "first",
        "frame",
        "31.0",
        "dB",
        "27.0",
        "dB",
    ]


def test_psnr_in_known_cases() -> None:
    black = np.zeros((4, 4, 3), dtype=np.uint8)
    assert psnr_db(black, black + 255) == pytest.approx(0)
    assert psnr_db(black, black + 1) == pytest.approx(48.13, abs=0.01)
