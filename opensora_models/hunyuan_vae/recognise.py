"""What the autoencoder's weights say about its config."""

import re
from collections.abc import Mapping
from typing import Any


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Return the keys of a recipe's [ae] that these shapes settle, or None for another family.

    Group counts, ratios, tiles, scale and shift leave no trace in shapes.
    """
    if not {"encoder.conv_in.conv.weight", "post_quant_conv.weight"} <= shapes.keys():
        return None
    first = re.compile(r"encoder\.down_blocks\.(\d+)\.resnets\.0\.conv1\.conv\.weight")
    widths = {int(match[1]): shape[0] for key, shape in shapes.items() if (match := first.fullmatch(key))}
    per_block = [
        key for key in shapes if re.fullmatch(r"encoder\.down_blocks\.0\.resnets\.\d+\.conv1\.conv\.weight", key)
    ]
    return {
        "type": "hunyuan_vae",
        "in_channels": shapes["encoder.conv_in.conv.weight"][1],
        "out_channels": shapes["decoder.conv_out.conv.weight"][0],
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "layers_per_block": len(per_block),
        "block_out_channels": [widths[number] for number in sorted(widths)],
        "mid_block_add_attention": any(key.startswith("encoder.mid_block.attentions.") for key in shapes),
    }
