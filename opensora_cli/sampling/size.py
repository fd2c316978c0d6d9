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

    `height` and `width` go before `resolution`, which always has a value. Raises OsoraError for sides that are not whole
    tokens: they are not rounded behind the user's back.
    """
    if config.height is not None and config.width is not None:
        return _whole_tokens(config.height, config.width, multiple)
    if config.height is not None or config.width is not None:
        raise OsoraError("sampling.height and sampling.width go together: give both, or neither and a resolution.")
    if config.resolution is None:
        raise OsoraError("sampling has no size: give sampling.resolution, or sampling.height and sampling.width.")
    return get_image_size(config.resolution, config.aspect_ratio, compression=multiple, training=False)


def _whole_tokens(height: int, width: int, multiple: int) -> tuple[int, int]:
    larger = round_up(height, multiple), round_up(width, multiple)
    if larger != (height, width):
        raise OsoraError(
            f"sampling.height = {height}, sampling.width = {width}: with this model and autoencoder both must be "
            f"multiples of {multiple}. The next larger size is {larger[0]} x {larger[1]}."
        )
    return height, width
