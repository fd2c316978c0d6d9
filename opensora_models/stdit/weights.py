"""STDiT's weights: what it computes, what a misfit means, and image models' weights under its names."""

from collections.abc import Mapping

from torch import Tensor

from opensora_models.layers.published_weights import StateDict, fit_null_caption, from_image_weights

COMPUTED_KEYS = ("pos_embed", "pos_embed_temporal")
"""Globs of keys in published weights that the model computes from its input."""

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) (blocks\.\d+\.)scale_shift_table", "model.depth"),
    (r"shape\[0\] x_embedder\.proj\.", "model.hidden_size"),
    (r"shape\[1\] x_embedder\.proj\.", "model.in_channels"),
    (r"shape\[[234]\] x_embedder\.proj\.", "model.patch_size"),
    (r"shape\[0\] final_layer\.linear\.", "model.pred_sigma"),
    (r"shape\[0\] y_embedder\.y_embedding", "model.model_max_length"),
    (r"shape\[1\] y_embedder\.", "model.caption_channels"),
    (r"shape\[0\] .*mlp\.fc1\.", "model.mlp_ratio"),
)
"""What a difference between a file and the model looks like (see weights.Misfit.likely_keys), and the key behind it."""


def as_own(state: Mapping[str, Tensor], model_max_length: int) -> StateDict:
    """Return weights of STDiT, or of PixArt as those of its spatial part, in the model's shapes.

    What an image model lacks (`blocks.*.attn_temp.*`) stays for `allow_missing`.
    """
    return fit_null_caption(from_image_weights(state, COMPUTED_KEYS), model_max_length)
