"""What differences between a file and the autoencoder look like (see weights.Misfit.likely_keys), and the keys behind."""

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) .*mid_block\.attentions", "ae.mid_block_add_attention"),
    (r"(?:missing|unexpected) ((?:en|de)coder\.(?:down|up)_blocks\.\d+\.resnets\.\d+\.)conv1", "ae.layers_per_block"),
    (r"(?:missing|unexpected) .*conv_shortcut", "ae.block_out_channels"),
    (r"shape\[0\] encoder\.conv_in", "ae.block_out_channels"),
    (r"shape\[0\] (?:encoder\.conv_out|quant_conv|post_quant_conv)", "ae.latent_channels"),
    (r"shape\[1\] encoder\.conv_in", "ae.in_channels"),
    (r"shape\[0\] decoder\.conv_out", "ae.out_channels"),
    (r"shape\[\d\] (?:en|de)coder\.", "ae.block_out_channels"),
)
