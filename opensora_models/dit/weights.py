"""DiT's weights: the published image model's, and what a difference to the model looks like."""

from collections.abc import Mapping

from torch import Tensor

from opensora_models.layers.published_weights import StateDict, from_image_weights

COMPUTED_KEYS = ("pos_embed", "pos_embed_spatial", "pos_embed_temporal")
"""Position tables in checkpoints (the first one in the image model's); the model computes them."""

LIKELY_CAUSES = (
    (r"(?:missing|unexpected) y_embedder\.(?:y_proj|y_embedding|embedding_table)", "model.condition"),
    (r"(?:missing|unexpected) (blocks\.\d+\.)", "model.depth"),
    (r"shape\[0\] x_embedder\.", "model.hidden_size"),
    (r"shape\[1\] x_embedder\.", "model.in_channels"),
    (r"shape\[[234]\] x_embedder\.", "model.patch_size"),
    (r"shape\[0\] y_embedder\.embedding_table", "model.condition"),
    (r"shape\[1\] y_embedder\.(?:y_proj\.fc1|y_embedding)", "model.caption_channels"),
    (r"shape\[0\] .*mlp\.fc1\.", "model.mlp_ratio"),
    (r"shape\[0\] final_layer\.linear", "model.learn_sigma"),
)
"""What a difference between a file and the model looks like (see weights.Misfit.likely_keys), and the key behind it."""


CLASSES = "y_embedder.embedding_table.weight"


def as_own(state: Mapping[str, Tensor], condition: str) -> StateDict:
    """Return the weights of DiT-XL-2-256x256.pt, or of upstream's own training, as those of a model with that condition.

    A model of texts that starts from one of classes leaves the classes out; what it lacks instead (`y_embedder.*`) stays for
    `allow_missing`.
    """
    own = from_image_weights(state, COMPUTED_KEYS)
    if condition == "text":
        own.pop(CLASSES, None)
    return own
