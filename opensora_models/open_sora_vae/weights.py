"""What misfits between a file and the autoencoder look like (see weights.Misfit.likely_keys)."""

import re

Causes = tuple[tuple[str, str], ...]

TEMPORAL_CAUSES: Causes = (
    (r"(?:missing|unexpected) {}((?:en|de)coder\.conv_blocks\.)", "temporal_downsample"),
    (r"(?:missing|unexpected) {}((?:en|de)coder\.(?:block_res_blocks\.\d+|res_blocks)\.\d+\.)conv1", "num_res_blocks"),
    (r"(?:missing|unexpected) {}((?:en|de)coder\.block_res_blocks\.)", "channel_multipliers"),
    (r"shape\[0\] {}encoder\.conv_in", "filters"),
    (r"shape\[1\] {}encoder\.conv_in", "in_out_channels"),
    (r"shape\[0\] {}encoder\.conv2", "latent_embed_dim"),
    (r"shape\[0\] {}quant_conv", "embed_dim"),
    (r"shape\[\d\] {}(?:en|de)coder\.", "channel_multipliers"),
)
"""Patterns with a place for what stands before a key, and names below the table of the stage."""


def causes_below(table: str, prefix: str, causes: Causes) -> Causes:
    """Return patterns of keys that start with `prefix`, and recipe keys that start with `table`.

    A group of a pattern takes the prefix in: it says how the keys that it explains start.
    """
    place = re.escape(prefix)
    return tuple((pattern.replace("{}(", f"({place}").replace("{}", place), f"{table}{key}") for pattern, key in causes)


PIPELINE_CAUSES: Causes = (
    (r"shape\[\d\] (?:shift|scale)$", "ae.shift"),
    *causes_below("ae.vae_temporal.", "temporal_vae.", TEMPORAL_CAUSES),
    (
        r"(?:missing|unexpected) (spatial_vae\.module\.(?:en|de)coder\.(?:down|up)_blocks\.\d+\.resnets\.\d+\.)conv1",
        "ae.vae_2d.layers_per_block",
    ),
    (r"shape\[0\] spatial_vae\.module\.(?:quant_conv|encoder\.conv_out)", "ae.vae_2d.latent_channels"),
    (r"(?:missing|unexpected|shape\[\d\]) (spatial_vae\.)", "ae.vae_2d.block_out_channels"),
)
