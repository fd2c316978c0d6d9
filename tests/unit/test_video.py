"""Reading windows of frames: always the frames that a full decode gives."""

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from opensora_cli.data import media, video
from opensora_cli.data.media import UnreadableClip
from opensora_cli.data.video import read_clip, read_reference
from tests.unit.data_fakes import CLIPS, MEDIA, full_decode, needs_media, numbered_mp4, numbers_of


@needs_media
@pytest.mark.parametrize("name", CLIPS)
def test_every_window_equals_a_full_decode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decodes_of_everything: list[str] = []
    everything = video._from_all

    def counted(path: str, *rest: object) -> object:
        decodes_of_everything.append(path)
        return everything(path, *rest)

    monkeypatch.setattr(video, "_from_all", counted)
    path = MEDIA / name
    want = full_decode(path)
    count, rng = len(want), random.Random(name)
    windows = [[0], [count - 1], [count // 2] * 2, list(range(0, count, 7)), sorted(rng.choices(range(count), k=5))]
    windows += [list(range(start, min(count, start + 4))) for start in rng.choices(range(count), k=4)]
    for window in windows:
        got = read_clip(str(path), window)
        assert got.dtype == torch.uint8
        assert np.array_equal(got.numpy(), want[window]), window
    assert not decodes_of_everything
    with pytest.raises(UnreadableClip, match=f"frame {count} is wanted, {count} can be decoded"):
        read_clip(str(path), [0, count])


@needs_media
def test_a_clip_that_is_shown_turned() -> None:
    assert read_clip(str(MEDIA / "nasa_13013_rotated.mp4"), [0]).shape == (1, 480, 270, 3)


@needs_media
def test_threads_do_not_change_frames() -> None:
    path = str(MEDIA / "bikes.mp4")
    assert torch.equal(read_clip(path, [60, 61, 130]), read_clip(path, [60, 61, 130], threads=2))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "webm"])
def test_containers_with_and_without_an_index(tmp_path: Path, suffix: str) -> None:
    path = encoded(tmp_path / f"a.{suffix}", "libvpx-vp9" if suffix == "webm" else "libx264")
    want = full_decode(path)
    assert numbers_of(want, step=7) == list(range(30))
    for window in ([0], [29], [13, 14, 15], [5, 22]):
        assert np.array_equal(read_clip(str(path), window).numpy(), want[window])


def encoded(path: Path, codec: str, size: tuple[int, int] = (32, 48)) -> Path:
    """30 numbered frames with B-frames and an open group of pictures every 10, as encoders make them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"g": "10", "x264-params": "open-gop=1:bframes=3:scenecut=0", "crf": "10"}
        for number in range(30):
            frame = np.full((*size, 3), 40 + 7 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


UNEVEN_TICKS = [*range(0, 30, 3), *range(30, 40)]
"""Ten pictures of three ticks each, then ten of one: at the average of two ticks, index i is time 2 i."""
SHOWN_AT_EVEN_TIMES = [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 12, 14, 16, 18]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "gif"])
def test_a_variable_frame_rate_is_read_at_even_times(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "gif":
        pictures = [Image.new("L", (20, 10), 40 + 8 * number) for number in range(20)]
        durations = [b - a for a, b in pairwise([*UNEVEN_TICKS, 40])]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[50 * ticks for ticks in durations])
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt, stream.options = 32, 48, "yuv420p", {"g": "6", "crf": "5"}
            stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
            for number, tick in enumerate(UNEVEN_TICKS):
                pixels = np.full((32, 48, 3), 40 + 8 * number, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = tick, Fraction(1, 10)
                frame.duration = 3 if number < 10 else 1
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert numbers_of(read_clip(str(path), range(20)).numpy()) == SHOWN_AT_EVEN_TIMES
    assert numbers_of(read_clip(str(path), [6, 16]).numpy()) == [4, 12]
    with pytest.raises(UnreadableClip, match="frame 20 is wanted"):
        read_clip(str(path), [20])


def test_pictures_that_no_other_needs_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encoded(tmp_path / "a.mp4", "libx264")
    shown: list[int] = []
    monkeypatch.setattr(media.Effort, "add", lambda effort, frame: shown.append(frame.pts))
    assert numbers_of(read_clip(str(path), [9]).numpy(), step=7) == [9]
    assert 0 < len(shown) < 8
    assert shown == sorted(shown)


def test_limits_on_duration_and_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(encoded(tmp_path / "a.mkv", "libvpx"))
    monkeypatch.setattr(media, "MAX_WORK", 48 * 32 * 20)
    assert len(read_clip(path, [19])) == 1
    with pytest.raises(UnreadableClip, match="more than 30720 pixels were decoded for one window"):
        read_clip(path, [20])
    monkeypatch.setattr(media, "MAX_SECONDS", 2)
    with pytest.raises(UnreadableClip, match=r"0.0 hours are more than 0: cut it into clips"):
        read_clip(path, [0])


def test_a_picture_that_grows_on_the_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = encoded(tmp_path / "a.ts", "libx264"), encoded(tmp_path / "b.ts", "libx264", size=(320, 480))
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(UnreadableClip, match="changes size"):
        read_clip(str(tmp_path / "c.ts"), [0, 40])
    monkeypatch.setattr(media, "MAX_PIXELS", 32 * 48)
    with pytest.raises(UnreadableClip, match="frame 40 is wanted, 30 can be decoded"):
        read_clip(str(tmp_path / "c.ts"), [0, 40])


def test_gif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), (30 * i, 0, 0)) for i in range(5)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    got = read_clip(str(path), [1, 4])
    assert got.shape == (2, 10, 20, 3)
    assert [int(frame[..., 0].float().mean()) for frame in got] == pytest.approx([30, 120], abs=6)


def test_an_image_is_turned_by_its_exif(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    image.save(tmp_path / "a.png", exif=exif)
    got = read_clip(str(tmp_path / "a.png"), [0])
    assert got.shape == (1, 20, 10, 3)
    assert got[0, 0, 9].tolist() == [255, 255, 255]
    assert media.image_size(str(tmp_path / "a.png")) == (20, 10)


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableClip, match="9000x9000 is more than 67108864 pixels"):
        read_clip(str(tmp_path / "a.png"), [0])
    Image.new("1", (14000, 14000)).save(tmp_path / "b.png")
    with pytest.raises(UnreadableClip, match="pixels"):
        media.image_size(str(tmp_path / "b.png"))
    monkeypatch.setattr(media, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableClip, match="48x32 is more than 100 pixels"):
        read_clip(str(numbered_mp4(tmp_path / "c.mp4")), [0])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("no.mp4", None, "No such file"),
        ("empty.mp4", b"", "Invalid data"),
        ("text.mp4", b"hello, this is text" * 9, "Invalid data"),
        ("text.png", b"hello", "cannot identify image"),
        ("folder.mp4", ..., "is a folder or a device"),
    ],
)
def test_unreadable_files_say_why(tmp_path: Path, name: str, content: object, says: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is ...:
        path.mkdir()
    with pytest.raises(UnreadableClip, match=says) as caught:
        read_clip(str(path), [0])
    assert str(caught.value).startswith(str(path))


def test_a_truncated_file_gives_the_frames_it_still_has(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mkv", "libx264")
    path.write_bytes(path.read_bytes()[:-150])
    kept = len(full_decode_tolerant(path))
    assert 0 < kept < 30
    assert len(read_clip(str(path), list(range(kept)))) == kept
    with pytest.raises(UnreadableClip, match="is wanted"):
        read_clip(str(path), [29])


def full_decode_tolerant(path: Path) -> list[av.VideoFrame]:
    frames: list[av.VideoFrame] = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                continue
    return frames


@pytest.mark.parametrize("indices", [[], [-1], [3, 2]])
def test_indices_must_ascend(tmp_path: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        read_clip(str(numbered_mp4(tmp_path / "a.mp4")), indices)


def test_reference_takes_the_first_or_the_last_frames(tmp_path: Path) -> None:
    path = str(numbered_mp4(tmp_path / "a.mp4", frames=20))
    for tail, want in ((False, [0, 1, 2, 3, 4]), (True, [15, 16, 17, 18, 19])):
        x_CTHW = read_reference(path, frames=5, height=16, width=16, tail=tail)
        assert x_CTHW.shape == (3, 5, 16, 16)
        pixels = ((x_CTHW + 1) * 127.5).permute(1, 2, 3, 0).numpy()
        assert numbers_of(pixels) == want


def test_reference_from_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (255, 0, 127)).save(tmp_path / "a.png")
    x_CTHW = read_reference(str(tmp_path / "a.png"), frames=1, height=16, width=32)
    assert x_CTHW.shape == (3, 1, 16, 32)
    assert x_CTHW[:, 0, 0, 0].tolist() == pytest.approx([1.0, -1.0, 127 / 127.5 - 1])
    with pytest.raises(UnreadableClip, match="33 frames are needed and an image has one"):
        read_reference(str(tmp_path / "a.png"), frames=33, height=16, width=16)


def test_reference_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(UnreadableClip, match="33 frames are needed, it has 20"):
        read_reference(str(numbered_mp4(tmp_path / "a.mp4")), frames=33, height=16, width=16)
