"""Reference images and clips from files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from opensora_cli.data.video import read_reference
from opensora_models.diffusion.condition import reference_frames
from schemas.condition import ConditionName

PixelClips = dict[tuple[Path, ...], list[Tensor]]
"""For each sample's reference files their frames, (3, T, H, W) in [-1, 1]."""


def read_references(
    files: Iterable[tuple[Path, ...]], condition: ConditionName, *, causal: bool, height: int, width: int
) -> PixelClips:
    """Read every sample's reference files once, resized and cropped to the sample's size.

    Raises OsoraError, with the frames that are needed, for a file that is missing, unreadable or too short.
    """
    return {paths: _read(paths, condition, causal, height, width) for paths in dict.fromkeys(files) if paths}


def _read(paths: Sequence[Path], condition: ConditionName, causal: bool, height: int, width: int) -> list[Tensor]:
    frames = reference_frames(condition, causal=causal)
    # The last reference of a loop, and that of any tail, is taken from the end of its file.
    tails = [False, True] if condition == "i2v_loop" else ["tail" in condition]
    return [
        read_reference(str(path), frames=frames, height=height, width=width, tail=tail)
        for path, tail in zip(paths, tails, strict=True)
    ]
