"""The learning proof around its trainings: steps that are done once, recipes that fit the clips, pictures."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import learn_shapes
from benchmarks.learn_pictures import Curve, draw_chart, draw_grid, smooth
from benchmarks.learn_shapes import Work, write_test
from benchmarks.shape_clips import FPS, FRAMES, SIDE, all_clips, held_out_clips, is_held_out
from opensora_cli.data.demo_clips import COLOURS, DIRECTIONS, SHAPES, SPEEDS, clip_frames, vocabulary
from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_models.text.encoders import ClipEncoder, T5Encoder
from schemas.recipes import SampleRecipe, TrainRecipe, VaeTrainRecipe
from schemas.resolve import resolve


def test_a_step_is_done_once_and_its_failed_tries_count(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Work(tmp_path, 1).step("train") as to_do:
        assert to_do
        sum(range(200_000))
        raise RuntimeError
    spent = Work(tmp_path, 1).seconds
    assert spent > 0
    with Work(tmp_path, 1).step("train") as to_do:
        assert to_do
    again = Work(tmp_path, 1)
    assert again.seconds >= spent
    with again.step("train") as to_do:
        assert not to_do


def test_a_step_within_a_step_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(learn_shapes, "processor_seconds", lambda: next(clock))
    work = Work(tmp_path, 1)
    with work.step("outer"), work.step("inner"):
        pass
    assert {name: step["seconds"] for name, step in work.steps.items()} == {"outer": 6.0, "inner": 3.0}
    assert work.seconds == 9.0


def test_recipes_fit_the_clips(tmp_path: Path) -> None:
    work = Work(tmp_path, 1)
    vae = resolve("tiny/learn_vae", sets=work.sets("vae-train")[1::2]).recipe
    train = resolve("tiny/learn_train", sets=work.sets("train")[1::2]).recipe
    sample = resolve("tiny/learn_sample", sets=work.sets("sample")[1::2]).recipe
    assert isinstance(vae, VaeTrainRecipe)
    assert isinstance(train, TrainRecipe)
    assert isinstance(sample, SampleRecipe)
    assert list(train.buckets) == list(vae.buckets) == [f"{SIDE}px"] == [sample.sampling.resolution]
    assert list(train.buckets[f"{SIDE}px"]) == [FRAMES] == [sample.sampling.num_frames]
    assert sample.sampling.fps_save == FPS
    assert train.model == sample.model.model_copy(update={"from_pretrained": None})
    assert (train.ae, train.text) == (sample.ae, sample.text)
    assert vae.ae == train.ae.model_copy(update={"from_pretrained": None})
    assert train.dataset.data_path == vae.dataset.data_path == str(tmp_path / "train" / "meta.csv")


def test_prompts_and_first_frames_are_those_of_the_held_out_clips(tmp_path: Path) -> None:
    write_test(tmp_path)

    def column(table: str, name: str) -> list[str]:
        with (tmp_path / table).open(encoding="utf-8", newline="") as file:
            return [row[name] for row in csv.DictReader(file)]

    held_out = [clip.caption for clip in held_out_clips()]
    assert column("t2v.csv", "text") == column("i2v.csv", "text") == held_out
    assert set(column("some.csv", "text")) < set(held_out)
    for clip, reference in list(zip(held_out_clips(), column("i2v.csv", "ref"), strict=True))[::20]:
        assert np.array_equal(np.asarray(Image.open(tmp_path / reference)), clip_frames(clip)[0])


def test_words_of_new_captions_can_be_told_from_the_tiny_encoders(tmp_path: Path) -> None:
    make_tiny_text_encoders(tmp_path, vocabulary(), seed=0)
    clips = all_clips()[::2]  # on one background
    captions = [clip.caption for clip in clips]
    features = {
        "t5": T5Encoder(str(tmp_path / "t5"), 14, torch.float32)(captions).flatten(1),
        "clip": ClipEncoder(str(tmp_path / "clip"), 16, torch.float32)(captions),
    }
    held_out = torch.tensor([is_held_out(clip) for clip in clips])
    for found_BD in features.values():
        found_BD = torch.cat([found_BD, torch.ones(len(clips), 1)], 1)
        for kind, words in (("colour", COLOURS), ("shape", SHAPES), ("direction", DIRECTIONS), ("speed", SPEEDS)):
            number_B = torch.tensor([list(words).index(getattr(clip, kind)) for clip in clips])
            known_BD, known_BW = found_BD[~held_out], F.one_hot(number_B[~held_out]).float()
            ridge_DD = known_BD.T @ known_BD + 1e-2 * torch.eye(known_BD.shape[1])
            map_DW = torch.linalg.solve(ridge_DD, known_BD.T @ known_BW)
            assert ((found_BD[held_out] @ map_DW).argmax(1) == number_B[held_out]).all(), kind


def test_pictures(tmp_path: Path) -> None:
    assert smooth([1, 3, 5, 7, 9], 2) == [2, 6, 9]
    draw_chart(tmp_path / "a" / "chart.png", "title", "update", [Curve("c", [0, 10], [0, 100])], 0, 100)
    chart = np.asarray(Image.open(tmp_path / "a" / "chart.png").convert("RGB")).astype(int)
    blue = (chart[..., 2] - chart[..., 0] > 90).nonzero()
    assert np.corrcoef(blue[1], blue[0])[0, 1] < -0.9  # a line that rises
    clip = np.zeros((FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    clip[4] = (255, 0, 0)
    draw_grid(tmp_path / "grid.png", [("a caption", clip)], [0, 4])
    grid = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    assert tuple(grid[30, -30]) == (255, 0, 0)
    assert tuple(grid[30, -100]) == (0, 0, 0)
