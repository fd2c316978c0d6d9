"""What the weights of the two-stage autoencoder, or of its stage along time alone, say about their config."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
SPATIAL, TEMPORAL = "spatial_vae.", "temporal_vae."
NEEDED = {"encoder.block_res_blocks.0.0.conv1.conv.weight", "decoder.conv1.conv.weight", "quant_conv.conv.weight"}


def recognise(shapes: Shapes, pictures: Callable[[Shapes], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the keys of a recipe's [ae] that these shapes settle, or None for another family.

    `pictures` recognises the stage of pictures. Group counts and the size of parts leave no trace in shapes.
    """
    if (alone := _temporal(shapes)) is not None:
        return {"type": "vae_temporal", **alone}
    temporal, spatial = _temporal(_below(TEMPORAL, shapes)), pictures(_below(SPATIAL, shapes))
    if temporal is None or spatial is None:
        return None
    return {"type": "open_sora_vae", "vae_2d": spatial, "vae_temporal": temporal}


def _below(prefix: str, shapes: Shapes) -> Shapes:
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _temporal(shapes: Shapes) -> dict[str, Any] | None:
    if not shapes.keys() >= NEEDED:
        return None
    filters, channels = shapes["encoder.conv_in.conv.weight"][:2]
    first = re.compile(r"encoder\.block_res_blocks\.(\d+)\.0\.conv1\.conv\.weight")
    widths = {int(match[1]): shape[0] for key, shape in shapes.items() if (match := first.fullmatch(key))}
    layers = [key for key in shapes if re.fullmatch(r"encoder\.res_blocks\.\d+\.conv1\.conv\.weight", key)]
    return {
        "in_out_channels": channels,
        "latent_embed_dim": shapes["encoder.conv2.conv.weight"][0] // 2,
        "embed_dim": shapes["quant_conv.conv.weight"][0] // 2,
        "filters": filters,
        "num_res_blocks": len(layers),
        "channel_multipliers": [widths[number] // filters for number in sorted(widths)],
        "temporal_downsample": [f"encoder.conv_blocks.{step}.conv.weight" in shapes for step in range(len(widths) - 1)],
    }
