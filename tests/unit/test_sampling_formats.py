"""Samples in every format: what is read back is what was made, and equal clips are equal files."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from opensora_cli.sampling.contact_sheet import write_contact_sheet
from opensora_cli.sampling.saving import suffix_of, to_frames, write_sample
from schemas.errors import OsoraError
from schemas.sampling import SamplingConfig


def clip(frames: int, height: int = 32, width: int = 48) -> torch.Tensor:
    """A ramp that moves, so that no two frames are the same."""
    ramp = torch.linspace(-1, 1, width).expand(3, frames, height, width).clone()
    for frame in range(frames):
        ramp[0, frame] = ramp[0, frame].roll(3 * frame, dims=-1)
    return ramp


@pytest.mark.parametrize(
    ("format_", "frames", "suffix"),
    [
        ("mp4", 9, ".mp4"), ("lossless", 9, ".mkv"), ("gif", 9, ".gif"), ("webp", 9, ".webp"),
        ("mp4", 1, ".png"), ("lossless", 1, ".png"), ("gif", 1, ".png"), ("webp", 1, ".webp"),
    ],
)  # fmt: skip
def test_the_format_decides_the_suffix(format_: str, frames: int, suffix: str) -> None:
    assert suffix_of(SamplingConfig.model_validate({"output_format": format_, "num_frames": frames})) == suffix


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif", ".webp", ".png"])
def test_equal_clips_are_equal_files(tmp_path: Path, suffix: str) -> None:
    first, second = (write_sample(tmp_path / f"{name}{suffix}", clip(5), 24).read_bytes() for name in "ab")
    assert first == second


def test_lossless_is_without_loss_and_takes_odd_sides(tmp_path: Path) -> None:
    video = clip(5, 33, 47)
    with av.open(str(write_sample(tmp_path / "clip.mkv", video, 8))) as file:
        stream = file.streams.video[0]
        assert stream.average_rate == 8
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    assert np.array_equal(np.stack(frames), to_frames(video))


@pytest.mark.parametrize(("suffix", "loss"), [(".gif", 12), (".webp", 6)])
@pytest.mark.parametrize("fps", [24, 8])
def test_animations_have_every_frame_and_keep_the_speed(tmp_path: Path, suffix: str, loss: float, fps: int) -> None:
    video = clip(12)
    with Image.open(write_sample(tmp_path / f"clip{suffix}", video, fps)) as image:
        assert image.info["loop"] == 0
        frames, seconds = [], 0.0
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            seconds += frame.info["duration"] / 1000
    assert abs(seconds - 12 / fps) <= 0.005
    assert np.abs(np.stack(frames).astype(int) - to_frames(video)).mean() < loss


def test_an_image_in_webp_is_without_loss(tmp_path: Path) -> None:
    with Image.open(write_sample(tmp_path / "image.webp", clip(1), 24)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), to_frames(clip(1))[0])


def test_the_contact_sheet_reads_every_format(tmp_path: Path) -> None:
    files = [write_sample(tmp_path / f"a{suffix}", clip(9), 24) for suffix in (".mp4", ".mkv", ".gif", ".webp", ".png")]
    with Image.open(write_contact_sheet(tmp_path / "sheet.png", [(file, file.name) for file in files])) as sheet:
        assert sheet.height > 5 * 128


def test_pixels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    video = clip(3)
    video[0, 1, 2, 3] = float("nan")
    with pytest.raises(OsoraError, match=r"clip.mp4: the model made pixels that are no numbers"):
        write_sample(tmp_path / "clip.mp4", video, 24)
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"clip.avi: samples are written as .mp4, .mkv"):
        write_sample(tmp_path / "clip.avi", clip(3), 24)
