"""Reference images and clips, from files and from an image model."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from opensora_cli.data.media import UnreadableClip, is_image
from opensora_cli.data.probe import probe
from opensora_cli.data.transforms import transform_image
from opensora_cli.data.video import read_reference
from opensora_cli.sampling.saving import to_frames
from opensora_models.diffusion.condition import reference_frames
from schemas.errors import OsoraError
from schemas.sampling import SamplingConfig


def check_references(files: Iterable[tuple[Path, ...]], config: SamplingConfig, *, causal: bool) -> None:
    """Look into every reference file once, without decoding it where its header says enough.

    Raises OsoraError, with the frames that are needed, for a file that is missing, no picture or too short.
    """
    frames = 1 if config.mask_strategy else reference_frames(config.cond_type, causal=causal)
    for path in dict.fromkeys(path for paths in files for path in paths):
        if not path.is_file():
            raise OsoraError(f"{path}: there is no such file. Give the path of an image or a video.")
        there = probe(str(path)).num_frames
        if there < frames:
            has = "an image has one; give a video" if is_image(str(path)) else f"it has {there}"
            raise UnreadableClip(str(path), f"{frames} frames are needed, {has}")


def read_references(
    paths: Sequence[Path], config: SamplingConfig, *, causal: bool, size: tuple[int, int]
) -> list[Tensor]:
    """Return a sample's references, (3, T, H, W) in [-1, 1] each, resized and cropped to `size` (height, width).

    Where a strategy says which frames are given, a reference is all of its file, as far as a clip's frames reach.
    Raises OsoraError for a file that cannot be read, or has fewer frames than the condition needs.
    """
    if config.mask_strategy:
        lengths = [min(probe(str(path)).num_frames, config.num_frames) for path in paths]
        return [_read(path, frames, size, tail=False) for path, frames in zip(paths, lengths, strict=True)]
    condition = config.cond_type
    frames = reference_frames(condition, causal=causal)
    # The last reference of a loop, and that of any tail, is taken from the end of its file.
    tails = [False, True] if condition == "i2v_loop" else ["tail" in condition]
    return [_read(path, frames, size, tail=tail) for path, tail in zip(paths, tails, strict=True)]


def _read(path: Path, frames: int, size: tuple[int, int], *, tail: bool) -> Tensor:
    return read_reference(str(path), frames=frames, height=size[0], width=size[1], tail=tail)


def first_frame(image_CTHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image (3, 1, H, W) as a reference of `size` (height, width): what reading its file as one would give."""
    x_CHW = transform_image(torch.from_numpy(to_frames(image_CTHW)[0]), "resize_crop", *size)
    return x_CHW[:, None]
