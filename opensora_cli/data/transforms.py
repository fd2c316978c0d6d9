"""Pixel transforms: cut a picture to a bucket's size and scale it to [-1, 1].

Video frames are resized bilinearly without antialiasing, images bicubically by PIL: what Open-Sora was trained with
(datasets/utils.py, get_transforms_video and get_transforms_image, in 2.0 as in 1.2 but for the center of a clip).
Legend: T frames, C channels, H W pixels.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

TransformName = Literal["resize_crop", "center", "rand_size_crop", "center_scaled"]
"""center_scaled is how Open-Sora 1.2 brings clips to center: by a factor, which samples other places; images are the same."""
_CENTERS = ("center", "center_scaled")


class Cut(NamedTuple):
    """A resize to (height, width), then a crop that starts at (top, left)."""

    height: int
    width: int
    top: int
    left: int


class CropDraw(NamedTuple):
    """Three numbers in [0, 1) that decide a random crop: its size (0 is the largest) and its place."""

    size: float
    top: float
    left: float


MIDDLE = CropDraw(0, 0.5, 0.5)
"""The largest crop, from the middle."""


def transform_video(x_THWC: Tensor, name: TransformName, height: int, width: int, draw: CropDraw = MIDDLE) -> Tensor:
    """Return uint8 frames (T, H, W, 3) as float32 (T, 3, height, width) in [-1, 1]; only rand_size_crop uses the draw."""
    x_TCHW = rearrange(x_THWC, "t h w c -> t c h w").float()
    cut = cut_of(name, x_TCHW.shape[2], x_TCHW.shape[3], height, width, image=False, draw=draw)
    if name == "center_scaled":
        scale = _center_scale(x_TCHW.shape[2], x_TCHW.shape[3], height, width)
        x_TCHW = F.interpolate(x_TCHW, scale_factor=scale, mode="bilinear", align_corners=False)
    else:
        x_TCHW = F.interpolate(x_TCHW, (cut.height, cut.width), mode="bilinear", align_corners=False)
    # Scaled to [-1, 1] only now: the picture is smaller than before, most often much smaller.
    return x_TCHW.div_(127.5).sub_(1)[..., cut.top : cut.top + height, cut.left : cut.left + width]


def transform_image(x_HWC: Tensor, name: TransformName, height: int, width: int, draw: CropDraw = MIDDLE) -> Tensor:
    """Return a uint8 image (H, W, 3) as float32 (3, height, width) in [-1, 1]; only rand_size_crop uses the draw."""
    image = Image.fromarray(x_HWC.numpy())
    while name in _CENTERS and min(image.size) >= 2 * max(height, width):
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    cut = cut_of(name, image.height, image.width, height, width, image=True, draw=draw)
    image = image.resize((cut.width, cut.height), Image.Resampling.BICUBIC)
    image = image.crop((cut.left, cut.top, cut.left + width, cut.top + height))
    x_CHW = rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").float() / 255
    return (x_CHW - 0.5) / 0.5


def cut_of(
    name: TransformName,
    height: int,
    width: int,
    to_height: int,
    to_width: int,
    *,
    image: bool,
    draw: CropDraw = MIDDLE,
) -> Cut:
    """Return how a picture of (height, width) is cut to (to_height, to_width).

    resize_crop makes the picture just cover the target, keeping its ratio; center brings its short side to the target's
    long side. Both then take the middle. rand_size_crop takes a part of the target's ratio, of any size from the largest
    to the target's own pixels, from any place.
    """
    if name == "rand_size_crop":
        return _random_cut(height, width, to_height, to_width, draw)
    if name == "center_scaled" and not image:
        scale = _center_scale(height, width, to_height, to_width)
        new_height, new_width = int(height * scale), int(width * scale)
    elif name in _CENTERS:
        scale = max(to_height, to_width) / min(height, width)
        new_height, new_width = round(height * scale), round(width * scale)
    elif to_height / height > to_width / width:
        new_height, new_width = to_height, round(width * to_height / height)
    else:
        new_height, new_width = round(height * to_width / width), to_width
    # Upstream's video crop of resize_crop truncates an odd half; everything else rounds it to even.
    middle = _truncated_half if name == "resize_crop" and not image else _rounded_half
    return Cut(new_height, new_width, middle(new_height - to_height), middle(new_width - to_width))


def _center_scale(height: int, width: int, to_height: int, to_width: int) -> float:
    short, target = min(height, width), max(to_height, to_width)
    scale = target / short
    # Rounding must not cost the short side its last pixel: a size by a factor is rounded down.
    return scale if short * scale >= target else math.nextafter(scale, math.inf)


def _random_cut(height: int, width: int, to_height: int, to_width: int, draw: CropDraw) -> Cut:
    covering = max(to_height / height, to_width / width)
    scale = covering + draw.size * max(1 - covering, 0)
    new_height, new_width = max(round(height * scale), to_height), max(round(width * scale), to_width)
    top, left = int(draw.top * (new_height - to_height + 1)), int(draw.left * (new_width - to_width + 1))
    return Cut(new_height, new_width, top, left)


def _truncated_half(excess: int) -> int:
    return excess // 2


def _rounded_half(excess: int) -> int:
    return round(excess / 2)
