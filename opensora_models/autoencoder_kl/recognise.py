"""What the weights of Stable Diffusion's autoencoders say about their config."""

import re
from collections.abc import Mapping
from typing import Any

from opensora_models.autoencoder_kl.weights import own_key

NEEDED = {"encoder.conv_in.weight", "encoder.down_blocks.0.resnets.0.conv1.weight", "quant_conv.weight"}


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Return the keys of a recipe's [ae] that these shapes settle, or None for another family.

    Group counts, scale and shift leave no trace in shapes. Flux's autoencoder in diffusers' names has no quant_conv.
    """
    own = {own_key(key): shape for key, shape in shapes.items()}
    if not own.keys() >= NEEDED or len(own["quant_conv.weight"]) != 4:
        return None
    first = re.compile(r"encoder\.down_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    widths = {int(match[1]): shape[0] for key, shape in own.items() if (match := first.fullmatch(key))}
    per_block = [key for key in own if re.fullmatch(r"encoder\.down_blocks\.0\.resnets\.\d+\.conv1\.weight", key)]
    joins_frames = "decoder.time_conv_out.weight" in own
    return {
        "type": "autoencoder_kl_temporal_decoder" if joins_frames else "autoencoder_kl",
        "in_channels": own["encoder.conv_in.weight"][1],
        "out_channels": own["decoder.conv_out.weight"][0],
        "latent_channels": own["quant_conv.weight"][0] // 2,
        "layers_per_block": len(per_block),
        "block_out_channels": [widths[number] for number in sorted(widths)],
    }
