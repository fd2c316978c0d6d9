"""What misfits between a file and the autoencoder look like (see weights.Misfit.likely_keys); diffusers' names."""

from opensora_models.layers.renaming import Rules
from schemas.autoencoder.dc_ae import DCAEShape

LIKELY_CAUSES = (
    (r"shape\[4\] ", "ae.shape.is_video"),
    (r"shape\[\d\] encoder\.project_out", "ae.shape.latent_channels"),
    (r"(?:missing|unexpected) .*\.aggreg\.", "ae.shape.block_type"),
    (
        r"(?:missing|unexpected) ((?:en|de)coder\.stages\.\d+\.op_list\.)\d+\.(?:context|local)_module",
        "ae.shape.block_type",
    ),
    (r"(?:missing|unexpected) (encoder\.stages\.\d+\.op_list\.)", "ae.shape.encoder_depth_list"),
    (r"(?:missing|unexpected) (decoder\.stages\.\d+\.op_list\.)", "ae.shape.decoder_depth_list"),
    (r"shape\[\d\] ", "ae.shape.width_list"),
)

DIFFUSERS = (
    (r"^encoder\.project_in\.conv\.(conv\.)?", r"encoder.conv_in.\1"),
    (r"^encoder\.project_out\.main\.op_list\.0\.conv\.", "encoder.conv_out."),
    (r"^decoder\.project_in\.main\.conv\.", "decoder.conv_in."),
    (r"^decoder\.project_out\.op_list\.0\.", "decoder.norm_out."),
    (r"^decoder\.project_out\.op_list\.2\.conv\.(conv\.)?", r"decoder.conv_out.\1"),
    (r"^encoder\.stages\.(\d+)\.op_list\.", r"encoder.down_blocks.\1."),
    (r"^decoder\.stages\.(\d+)\.op_list\.", r"decoder.up_blocks.\1."),
    (r"\.context_module\.main\.qkv\.conv\.", ".attn.to_{q,k,v}."),
    (r"\.context_module\.main\.aggreg\.(\d+)\.0\.", r".attn.to_qkv_multiscale.\1.proj_in."),
    (r"\.context_module\.main\.aggreg\.(\d+)\.1\.", r".attn.to_qkv_multiscale.\1.proj_out."),
    (r"\.context_module\.main\.proj\.conv\.", ".attn.to_out."),
    (r"\.context_module\.main\.proj\.norm\.", ".attn.norm_out."),
    (r"\.local_module\.main\.(inverted|depth|point)_conv\.conv\.", r".conv_out.conv_\1."),
    (r"\.local_module\.main\.point_conv\.norm\.", ".conv_out.norm."),
    (r"\.main\.conv([12])\.conv\.", r".conv\1."),
    (r"\.main\.conv2\.norm\.", ".norm."),
    (r"\.main\.conv\.(?:conv\.)?", ".conv."),
)
"""Our keys as those of diffusers' AutoencoderDC, for the flavours that take pictures (see layers/renaming.py)."""
DIFFUSERS_LINEAR = r"\.attn\.to_(?:[qkv]|out)\.weight$"


def diffusers_rules(shape: DCAEShape) -> Rules:
    """Return the table for a shape: a first stage without blocks has its step, one level deeper, in conv_in and conv_out."""
    rules = []
    for pattern, replacement in DIFFUSERS:
        side = "encoder" if "encoder.conv_in" in replacement else "decoder"
        depths = shape.encoder_depth_list if side == "encoder" else shape.decoder_depth_list
        if r"(conv\.)?" in pattern:
            replacement = replacement.replace(r"\1", "" if depths[0] else "conv.")
        rules.append((pattern, replacement))
    return rules
