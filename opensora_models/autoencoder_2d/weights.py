"""What misfits between a file and the autoencoder look like (see weights.Misfit.likely_keys); diffusers' names."""

from opensora_models.layers.renaming import Rules

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) (?:en|de)coder\.(?:down|up)\.\d+\.(?:down|up)sample", "ae.ch_mult"),
    (r"(?:missing|unexpected) ((?:en|de)coder\.(?:down|up)\.\d+\.block\.\d+\.)conv1", "ae.num_res_blocks"),
    (r"shape\[0\] encoder\.conv_in", "ae.ch"),
    (r"shape\[0\] encoder\.conv_out", "ae.z_channels"),
    (r"shape\[1\] encoder\.conv_in", "ae.in_channels"),
    (r"shape\[0\] decoder\.conv_out", "ae.out_ch"),
    (r"shape\[\d\] ", "ae.ch_mult"),
)

DIFFUSERS_LINEAR = r"\.attentions\.0\.to_(?:[qkv]|out\.0)\.weight$"


def diffusers_rules(levels: int) -> Rules:
    """Return our keys as those of diffusers' AutoencoderKL with that many levels, whose decoder counts them the other way."""
    mirrored = [(rf"^decoder\.up\.{level}\.", f"decoder.up_blocks.{levels - 1 - level}.") for level in range(levels)]
    return [
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        *mirrored,
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.(down|up)sample\.", r".\1samplers.0."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
        (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.norm_out\.", ".conv_norm_out."),
    ]
