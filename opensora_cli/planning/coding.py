"""The cost of encoding or decoding, by whichever way there is for the family."""

from typing import Literal, assert_never

from opensora_cli.planning.coded import Coding, Extent
from opensora_cli.planning.hunyuan_vae import walked_coding
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.staged import staged_coding
from opensora_cli.planning.tiles import candidates, with_tiles
from opensora_cli.planning.traced import traced_coding
from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    DCAEConfig,
    HunyuanVAEConfig,
    OpenSoraVAEConfig,
    TiledConfig,
    VAETemporalConfig,
)


def coding(
    config: AutoencoderConfig,
    precision: Precision,
    batch: int,
    extent: Extent,
    direction: Literal["encode", "decode"],
    *,
    trained: bool = False,
) -> Coding:
    """Return the cost of a batch in tiles where the configuration asks for them; `extent` is in pixels either way.

    Tiles that are yet to be chosen count as the smallest, which a job takes at worst. `trained`: with gradients; some
    families take less memory without.
    """
    if isinstance(config, TiledConfig) and config.tiling == "auto":
        config = with_tiles(config, candidates(config, extent)[-1])
    match config:
        case HunyuanVAEConfig():
            return walked_coding(config, precision, batch, extent, direction, trained=trained)
        case DCAEConfig() | AutoEncoder2DConfig():
            return traced_coding(config, precision.matrix, batch, extent, direction, trained=trained)
        case AutoencoderKLConfig() | AutoencoderKLTemporalDecoderConfig() | VAETemporalConfig() | OpenSoraVAEConfig():
            return staged_coding(config, precision.matrix, batch, extent, direction)
        case _:
            assert_never(config)
