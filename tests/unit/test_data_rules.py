"""The rules of Open-Sora 1.2 beside those of 2.0, where no recorded row says how."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opensora_cli.data import aspect_v1
from opensora_cli.data.batches import plan_epoch
from opensora_cli.data.buckets import BucketKey, Buckets, BucketTable
from opensora_cli.data.loader import build_loader
from opensora_cli.data.requests import EpochRequests
from opensora_cli.data.rules import RULES_2_0, Rules12, rules_of
from opensora_cli.data.transforms import transform_image, transform_video
from schemas.data import PIXELS_1_2, DatasetConfig
from schemas.errors import OsoraError
from schemas.resolve import RecipeError, resolve
from tests.unit.data_fakes import numbered_mp4, numbers_of
from tests.unit.manifest_fakes import manifest


def buckets_of(
    table: BucketTable, frames: list[int], size: tuple[int, int] = (256, 256), interval: int = 1
) -> list[str]:
    """Where clips of one size and so many frames go, as text; "" for nowhere."""
    built = Buckets(table, rules=Rules12(interval))
    lengths = np.array(frames, dtype=np.int32)
    heights, widths = (np.full(len(frames), side, dtype=np.int32) for side in size)
    found = built.assign(lengths, heights, widths, np.full(len(frames), 24.0), None, seed=1, epoch=0).bucket
    return [str(built.keys[bucket]) if bucket >= 0 else "" for bucket in found]


def test_a_clip_has_to_be_longer_than_its_window() -> None:
    table = {"256": {1: (1.0, 4), 51: (1.0, 1)}}
    assert buckets_of(table, [1, 2, 51, 52]) == ["256 1 frames 1.0", "", "", "256 51 frames 1.0"]
    assert buckets_of(table, [1, 153, 154], interval=3) == ["256 1 frames 1.0", "", "256 51 frames 1.0"]


def test_one_size_takes_every_clip_that_has_the_frames() -> None:
    table = {"256x256": {16: (1.0, 8), 1: (1.0, 2)}}
    assert buckets_of(table, [1, 2, 15, 16, 500], (30, 90), interval=3) == [
        "256x256 1 frames 1.00",
        "",
        "",
        "256x256 16 frames 1.00",
        "256x256 16 frames 1.00",
    ]
    built = Buckets(table, rules=Rules12())
    assert built.shape(BucketKey("256x256", 16, "1.00")) == (16, 256, 256, 8)


@pytest.mark.parametrize(("consider", "least", "most"), [(0.0, 0, 0), (0.25, 460, 540), (1.0, 2000, 2000)])
def test_the_second_of_a_pair_is_the_chance_to_be_considered(consider: float, least: int, most: int) -> None:
    found = buckets_of({"256": {102: ((1.0, consider), 1), 51: (1.0, 1)}}, [200] * 2000)
    assert least <= found.count("256 102 frames 1.0") <= most
    assert set(found) <= {"256 102 frames 1.0", "256 51 frames 1.0"}


def test_what_is_not_kept_goes_to_the_next_resolution_and_not_to_a_shorter_length() -> None:
    table = {"256": {102: ((0.0, 1.0), 1), 51: (1.0, 1)}, "144p": {51: (1.0, 1)}}
    assert set(buckets_of(table, [200] * 20)) == {"144p 51 frames 1.00"}


def test_rules_come_from_the_recipe() -> None:
    assert rules_of(DatasetConfig()) is RULES_2_0
    assert rules_of(DatasetConfig(rules="open-sora-1.2", frame_interval=3)) == Rules12(3)


def test_a_request_has_the_rate_by_the_interval_and_the_caption_as_it_is() -> None:
    data, rules = manifest(60), Rules12(3)
    buckets = Buckets({"256": {1: (1.0, 2), 8: (1.0, 2)}, "144p": {1: (1.0, 2), 8: (1.0, 2)}}, rules=rules)
    requests = EpochRequests(data, buckets, DatasetConfig(rules="open-sora-1.2", frame_interval=3), seed=1)
    requests.take(plan_epoch(data, buckets, None, seed=1, epoch=0).of_rank(0, 1), 0)
    clips = [clip for request in requests for clip in request.clips]
    assert clips
    for clip in clips:
        fps = data.fps_of(clip.row)
        assert clip.text == f"clip {clip.row}"
        assert (clip.fps, clip.interval) == ((24.0 if math.isnan(fps) else fps) // 3, 3)


def test_clips_and_pictures_of_one_size_are_read_with_their_frames_and_rates(tmp_path: Path) -> None:
    """Windows of 4 * 3 frames spread over all twelve, of a clip with 11 frames over these; 30 fps become 10."""
    numbered_mp4(tmp_path / "0.mp4", 13, 30, (20, 28))
    numbered_mp4(tmp_path / "1.mp4", 11, 30, (20, 28))
    Image.new("RGB", (40, 30)).save(tmp_path / "2.png")
    rows = ["path,text,height,width,num_frames,fps"]
    rows += ["0.mp4,a,20,28,13,30", "1.mp4,b,20,28,11,30", "2.png,c,30,40,1,"]
    (tmp_path / "meta.csv").write_text("\n".join(rows) + "\n")
    config = DatasetConfig(
        data_path=str(tmp_path / "meta.csv"),
        rules="open-sora-1.2",
        frame_interval=3,
        transform_name="center",
        num_workers=0,
    )
    loader = build_loader(config, {"16x16": {4: (1.0, 1), 1: (1.0, 1)}}, compression=8, seed=0)
    found = {batch.text[0]: batch for batch in loader.epoch(0)}
    assert {text: batch.fps for text, batch in found.items()} == {"a": [10.0], "b": [10.0], "c": [120.0]}
    assert {text: batch.video.shape[2:] for text, batch in found.items()} == {
        "a": (4, 16, 16),
        "b": (4, 16, 16),
        "c": (1, 16, 16),
    }
    frames = {text: numbers_of(((found[text].video[0] + 1) * 127.5).movedim(0, -1).numpy()) for text in "ab"}
    assert frames == {"a": [0, 3, 7, 11], "b": [0, 3, 6, 10]}


@pytest.mark.parametrize("short", [49, 93, 103, 196])
def test_scaling_to_the_center_never_loses_the_last_pixel(short: int) -> None:
    """49 * (16 / 49) is less than 16."""
    x_THWC = torch.randint(0, 256, (1, short, 2 * short, 3), dtype=torch.uint8)
    assert transform_video(x_THWC, "center_scaled", 16, 16).shape == (1, 3, 16, 16)
    image = transform_image(x_THWC[0], "center_scaled", 16, 16)
    assert torch.equal(image, transform_image(x_THWC[0], "center", 16, 16))


@pytest.mark.parametrize("name", PIXELS_1_2)
def test_sizes_have_about_the_pixels_of_their_resolution(name: str) -> None:
    for ratio, (height, width) in aspect_v1.aspect_table(name).items():
        assert height * width == pytest.approx(PIXELS_1_2[name], rel=0.13)
        if ratio != "2.08":
            assert height / width == pytest.approx(float(ratio), rel=0.04)


def test_names_that_are_no_resolution_ratio_or_length_are_refused_with_those_there_are() -> None:
    with pytest.raises(OsoraError, match=r"'256px'.*144p, 256,.*256x256"):
        aspect_v1.aspect_table("256px")
    with pytest.raises(OsoraError, match=r"'9:16': 256 has 12:25 \(height:width\)"):
        aspect_v1.get_image_size("256", "9:16")
    with pytest.raises(OsoraError, match=r"'3s'.*2s, 4s"):
        aspect_v1.frame_count("3s")


OLDER = ['dataset.rules="open-sora-1.2"', 'buckets."256x256".33=[1.0, 1]']


@pytest.mark.parametrize(
    ("sets", "code", "way_out"),
    [
        (['buckets."256".33=[1.0, 4]'], "OSR202", "dataset.rules"),
        ([*OLDER, 'buckets."480".33=[1.0, 4]'], "OSR202", "144p, 256, 240p"),
        ([*OLDER, "dataset.fps_max=24"], "OSR207", "dataset.frame_interval"),
        ([*OLDER, "dataset.vmaf=true"], "OSR207", "captions"),
        (['buckets."64px".9=[1.0, 2]', "dataset.frame_interval=2"], "OSR207", "dataset.fps_max"),
    ],
)
def test_a_recipe_that_mixes_the_rules_is_refused(sets: list[str], code: str, way_out: str) -> None:
    unsets = [] if "64px" in sets[0] else ['buckets."64px"']
    with pytest.raises(RecipeError) as error:
        resolve("tiny/train", sets=sets, unsets=unsets)
    assert [(found.code, way_out in str(found.help)) for found in error.value.diagnostics] == [(code, True)]
