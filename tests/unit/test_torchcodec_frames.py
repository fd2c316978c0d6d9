"""torchcodec behind the readers' interface, with a stand-in module: its builds load beside few releases of torch."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_cli.data import torchcodec_frames, video
from opensora_cli.data.media import UnreadableClip
from opensora_cli.data.readers import frame_reader
from schemas.errors import UsageError
from tests.unit.data_fakes import MEDIA, full_decode, needs_media, numbered_mp4, numbers_of


@dataclass
class FrameBatch:
    data: Tensor


class FakeDecoder:
    """Decodes everything at the start, and remembers how it was made."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, source: str, **options: object) -> None:
        self.made.append(options)
        self.frames_THWC = torch.from_numpy(full_decode(Path(source)))

    def get_frames_at(self, indices: list[int]) -> FrameBatch:
        if max(indices) >= len(self.frames_THWC):
            raise IndexError(f"frame index {max(indices)} is out of bounds\nwith more lines behind it")
        return FrameBatch(self.frames_THWC[indices])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeDecoder]:
    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = FakeDecoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    monkeypatch.setattr(FakeDecoder, "made", [])
    return FakeDecoder


def test_frames_are_those_that_are_asked_for(fake: type[FakeDecoder], tmp_path: Path) -> None:
    path = str(numbered_mp4(tmp_path / "a.mp4"))
    frames = np.stack(list(frame_reader("torchcodec", 3)(path, [2, 5, 5, 19])))
    assert frames.dtype == np.uint8
    assert numbers_of(frames) == [2, 5, 5, 19]
    assert fake.made == [{"stream_index": 0, "dimension_order": "NHWC", "num_ffmpeg_threads": 3}]
    with pytest.raises(UnreadableClip, match=r"a.mp4: frame index 20 is out of bounds$"):
        list(frame_reader("torchcodec", 1)(path, [20]))
    with pytest.raises(ValueError, match="ascending"):
        frame_reader("torchcodec", 1)(path, [3, 2])


@needs_media
@pytest.mark.parametrize("name", ["nasa_13013_rotated.mp4", "av1_video.mkv", "discard_first_keyframe.mp4"])
def test_what_its_releases_disagree_about_is_read_by_pyav(fake: type[FakeDecoder], name: str) -> None:
    path = str(MEDIA / name)
    got = list(torchcodec_frames.read_frames(path, [3, 9]))
    assert all(np.array_equal(a, b) for a, b in zip(got, video.read_frames(path, [3, 9]), strict=True))
    assert fake.made == []


def test_a_missing_package_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(UsageError, match=r"dataset.reader = .torchcodec.: torchcodec does not load here .*pyav"):
        frame_reader("torchcodec", 1)


def test_a_package_that_does_not_load_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text(
        "raise RuntimeError('Could not load libtorchcodec.\\nLong story')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"\(RuntimeError: Could not load libtorchcodec\.\)\. Install"):
        frame_reader("torchcodec", 1)
