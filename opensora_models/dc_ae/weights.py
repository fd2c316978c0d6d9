"""What differences between a file and the autoencoder look like (see weights.Misfit.likely_keys), and the keys behind."""

LIKELY_CAUSES = (
    (r"shape\[\d\] encoder\.project_out", "ae.shape.latent_channels"),
    (r"(?:missing|unexpected) .*\.aggreg\.", "ae.shape.block_type"),
    (
        r"(?:missing|unexpected) ((?:en|de)coder\.stages\.\d+\.op_list\.)\d+\.(?:context|local)_module",
        "ae.shape.block_type",
    ),
    (r"(?:missing|unexpected) (encoder\.stages\.\d+\.op_list\.)", "ae.shape.encoder_depth_list"),
    (r"(?:missing|unexpected) (decoder\.stages\.\d+\.op_list\.)", "ae.shape.decoder_depth_list"),
    (r"shape\[4\] ", "ae.shape.is_video"),
    (r"shape\[\d\] ", "ae.shape.width_list"),
)
