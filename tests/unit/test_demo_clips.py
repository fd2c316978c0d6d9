"""Made clips and tiny text encoders."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from opensora_cli.data.demo_clips import clip_frames, draw_clip, prepare_demo, vocabulary
from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.data.probe import probe
from opensora_cli.data.video import read_clip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    prepare_demo(folder, clips=10, seed=3)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "meta.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_says_what_the_files_are(demo: Path) -> None:
    assert len(rows(demo)) == 10
    for number, row in enumerate(rows(demo)):
        clip = draw_clip(3, number)
        assert row["text"] == clip.caption
        assert (int(row["height"]), int(row["width"])) == clip.size
        assert (int(row["num_frames"]), float(row["fps"])) == (clip.frames, clip.fps)
        info = probe(str(demo / row["path"]))
        assert (info.num_frames, info.fps, info.height) == (clip.frames, clip.fps, int(row["height"]))


def test_files_show_what_was_drawn(demo: Path) -> None:
    for number, row in enumerate(rows(demo)):
        want = clip_frames(draw_clip(3, number)).astype(float)
        got = read_clip(str(demo / row["path"]), range(len(want))).numpy()
        assert abs(got - want).mean() < 12


def test_the_shape_moves_as_the_caption_says() -> None:
    for number in range(30):
        clip = draw_clip(0, number)
        frames = clip_frames(clip).astype(float)
        weight = abs(frames - frames[:, :1, :1]).sum(-1)
        y, x = ((weight * axis).sum((1, 2)) / weight.sum((1, 2)) for axis in np.mgrid[: clip.size[0], : clip.size[1]])
        along = {"right": x, "left": -x, "down": y, "up": -y}[clip.direction]
        assert np.diff(along).min() > 0
        assert np.ptp(y if clip.direction in ("left", "right") else x) < 0.5


def test_clips_do_not_depend_on_their_number() -> None:
    assert draw_clip(0, 5) == draw_clip(0, 5)
    assert len({draw_clip(seed, number) for seed in (0, 1) for number in range(20)}) > 35


def test_every_word_of_every_caption_is_known(demo: Path) -> None:
    words = set(vocabulary())
    for number in range(200):
        assert set(draw_clip(0, number).caption.split()) <= words


def test_text_encoders_load_offline_and_tell_captions_apart(demo: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    captions = ["a red circle moves up fast on grey 8 FPS.", "a blue circle moves up fast on grey 8 FPS.", ""]
    for name, model in (("t5", T5EncoderModel), ("clip", CLIPTextModel)):
        tokenizer = AutoTokenizer.from_pretrained(demo / name, local_files_only=True)
        encoder = model.from_pretrained(demo / name, local_files_only=True).eval()
        tokens = tokenizer(
            captions, padding="max_length", max_length=24, truncation=True, return_tensors="pt"
        ).input_ids
        assert tokens.shape == (3, 24)
        assert tokenizer.unk_token_id not in tokens
        with torch.no_grad():
            output = encoder(input_ids=tokens)
        states = output.last_hidden_state if name == "t5" else output.pooler_output
        assert states.shape[-1] == 32
        assert (states[0] - states[1]).abs().max() > 0.1
        assert (states[0] - states[2]).abs().max() > 0.1


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_tiny_text_encoders(tmp_path / name, ["red", "blue"], seed)
    weights = [(tmp_path / name / "t5" / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert torch.equal(before, torch.random.get_rng_state())
