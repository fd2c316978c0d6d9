"""What differences between a file and the autoencoder look like (see weights.Misfit.likely_keys), and the keys behind."""

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) ((?:en|de)coder\.(?:down|up)\.\d+\.block\.\d+\.)conv1", "ae.num_res_blocks"),
    (r"(?:missing|unexpected) (?:en|de)coder\.(?:down|up)\.\d+\.", "ae.ch_mult"),
    (r"shape\[0\] encoder\.conv_in", "ae.ch"),
    (r"shape\[0\] encoder\.conv_out", "ae.z_channels"),
    (r"shape\[1\] encoder\.conv_in", "ae.in_channels"),
    (r"shape\[0\] decoder\.conv_out", "ae.out_ch"),
    (r"shape\[\d\] ", "ae.ch_mult"),
)
