"""The size of a sample in pixels."""

from opensora_cli.data import aspect_v1
from opensora_cli.data.aspect import get_image_size
from schemas.sampling import SamplingConfig


def sample_size(config: SamplingConfig, pixels_per_token: int) -> tuple[int, int]:
    """Return (height, width) of what a checked recipe asks for.

    `height` and `width` go before `resolution`, which always has a value. Raises OsoraError for a resolution or an aspect
    ratio that has no size.
    """
    if config.height is not None and config.width is not None:
        return config.height, config.width
    assert config.resolution is not None, "rules of the recipe want height and width together, or a resolution"
    if config.rules == "open-sora-1.2":
        width, _, height = config.aspect_ratio.partition(":")
        return aspect_v1.get_image_size(config.resolution, f"{height}:{width}")  # its tables say height:width
    return get_image_size(config.resolution, config.aspect_ratio, compression=pixels_per_token, training=False)
