"""PixArt's weights: the published image models', and what a difference to the model looks like."""

from collections.abc import Mapping

from torch import Tensor

from opensora_models.layers.published_weights import StateDict, fit_null_caption, from_image_weights

COMPUTED_KEYS = ("pos_embed", "pos_embed_temporal")
"""Position tables in checkpoints; the model computes them."""

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) ((?:csize|ar)_embedder\.)", "model.multi_scale"),
    (r"(?:missing|unexpected) blocks\.\d+\.attn\.(?:sr|norm)\.", "model.kv_compress_config"),
    (r"(?:missing|unexpected) blocks\.\d+\.attn\.[qk]_norm\.", "model.qk_norm"),
    (r"(?:missing|unexpected) (blocks\.\d+\.)", "model.depth"),
    (r"shape\[0\] x_embedder\.", "model.hidden_size"),
    (r"shape\[1\] x_embedder\.", "model.in_channels"),
    (r"shape\[[234]\] x_embedder\.", "model.patch_size"),
    (r"shape\[[23]\] blocks\.\d+\.attn\.sr\.", "model.kv_compress_config.scale_factor"),
    (r"shape\[0\] y_embedder\.y_embedding", "model.model_max_length"),
    (r"shape\[1\] y_embedder\.(?:y_proj\.fc1|y_embedding)", "model.caption_channels"),
    (r"shape\[0\] .*attn\.[qk]_norm\.", "model.num_heads"),
    (r"shape\[0\] .*mlp\.fc1\.", "model.mlp_ratio"),
    (r"shape\[0\] final_layer\.linear", "model.pred_sigma"),
)
"""What a difference between a file and the model looks like (see weights.Misfit.likely_keys), and the key behind it."""


def from_published(state: Mapping[str, Tensor], model_max_length: int) -> StateDict:
    """Return the weights of PixArt-XL-2-*.pth and PixArt-Sigma-XL-2-*.pth (their table `state_dict`) as this model's."""
    return fit_null_caption(from_image_weights(state, COMPUTED_KEYS), model_max_length)
