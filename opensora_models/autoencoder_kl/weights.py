"""What misfits between a file and the autoencoder look like (see weights.Misfit.likely_keys), and names in other files."""

import re

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) decoder\.time_conv_out", "ae.type"),
    (r"(?:missing|unexpected) ((?:en|de)coder\.(?:down|up)_blocks\.)\d+\.(?:down|up)samplers", "ae.block_out_channels"),
    (r"(?:missing|unexpected) ((?:en|de)coder\.(?:down|up)_blocks\.\d+\.resnets\.\d+\.).*conv1", "ae.layers_per_block"),
    (r"(?:missing|unexpected) (decoder\.mid_block\.resnets\.\d+\.).*conv1", "ae.layers_per_block"),
    (r"(?:missing|unexpected) ((?:en|de)coder\.(?:down|up)_blocks\.)", "ae.block_out_channels"),
    (r"shape\[0\] encoder\.conv_in", "ae.block_out_channels"),
    (r"shape\[0\] (?:encoder\.conv_out|quant_conv|post_quant_conv)", "ae.latent_channels"),
    (r"shape\[1\] encoder\.conv_in", "ae.in_channels"),
    (r"shape\[0\] decoder\.conv_out", "ae.out_channels"),
    (r"shape\[\d\] (?:en|de)coder\.", "ae.block_out_channels"),
)

OPEN_SORA_PREFIX = "module."
"""Open-Sora wraps diffusers' class, and so do its files."""
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the attention's layers in diffusers' files from before version 0.15, sd-vae-ft-ema's among them."""
_OLD = re.compile(rf"(\.attentions\.0\.)({'|'.join(OLD_ATTENTION)})\.")


def own_key(key: str) -> str:
    """Return our name of a file's key."""
    return _OLD.sub(lambda match: f"{match[1]}{OLD_ATTENTION[match[2]]}.", key.removeprefix(OPEN_SORA_PREFIX))
