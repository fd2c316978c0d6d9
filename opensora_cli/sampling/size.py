"""The size of a sample in pixels."""

import math

from opensora_cli.data.aspect import get_image_size
from schemas.errors import OsoraError
from schemas.sampling import SamplingConfig


def round_up(side: int, multiple: int) -> int:
    """Return the smallest multiple that is no smaller than `side`."""
    return multiple * math.ceil(side / multiple)


def sample_size(config: SamplingConfig, multiple: int) -> tuple[int, int]:
    """Return (height, width) of what a recipe asks for; `multiple` is the pixels per side of a token.

    Raises OsoraError for sides that are not whole tokens: they are not rounded behind the user's back.
    """
    if config.resolution is not None:
        height, width = get_image_size(config.resolution, config.aspect_ratio, compression=multiple, training=False)
        return height, width
    if config.height is None or config.width is None:
        raise OsoraError(
            "sampling has no size: give sampling.resolution with sampling.aspect_ratio, or both sampling.height and "
            "sampling.width."
        )
    height, width = round_up(config.height, multiple), round_up(config.width, multiple)
    if (height, width) != (config.height, config.width):
        raise OsoraError(
            f"sampling.height = {config.height}, sampling.width = {config.width}: with this model and autoencoder both "
            f"must be multiples of {multiple}. The next larger size is {height} x {width}."
        )
    return height, width
