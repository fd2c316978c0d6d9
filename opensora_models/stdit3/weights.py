"""STDiT3's weights: what it computes, what a misfit means, and image models' weights under its names."""

import re
from collections.abc import Mapping

from torch import Tensor

from opensora_models.layers.published_weights import StateDict, fit_null_caption, from_image_weights

COMPUTED_KEYS = ("rope.*", "pos_embed", "pos_embed.*", "pos_embed_temporal")
"""Globs of keys in published weights that the model computes from its input."""

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) ((?:spatial|temporal)_blocks\.\d+\.)scale_shift_table", "model.depth"),
    (r"(?:missing|unexpected) .*\.[qk]_norm\.", "model.qk_norm"),
    (r"shape\[0\] x_embedder\.proj\.", "model.hidden_size"),
    (r"shape\[1\] x_embedder\.proj\.", "model.in_channels"),
    (r"shape\[[234]\] x_embedder\.proj\.", "model.patch_size"),
    (r"shape\[0\] final_layer\.linear\.", "model.pred_sigma"),
    (r"shape\[0\] y_embedder\.y_embedding", "model.model_max_length"),
    (r"shape\[1\] y_embedder\.", "model.caption_channels"),
    (r"shape\[0\] .*_norm\.weight", "model.num_heads"),
    (r"shape\[0\] .*mlp\.fc1\.", "model.mlp_ratio"),
)
"""What a difference between a file and the model looks like (see weights.Misfit.likely_keys), and the key behind it."""


def as_own(state: Mapping[str, Tensor], model_max_length: int) -> StateDict:
    """Return weights of STDiT3, or of PixArt as those of its spatial half, under the model's names and in its shapes.

    What an image model lacks (`temporal_blocks.*`, `fps_embedder.*`) stays for `allow_missing`.
    """
    named = {re.sub(r"^blocks\.", "spatial_blocks.", key): tensor for key, tensor in state.items()}
    return fit_null_caption(from_image_weights(named, COMPUTED_KEYS), model_max_length)
