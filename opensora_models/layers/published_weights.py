"""Weights of image models as the video models that start from them hold them."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor

StateDict = dict[str, Tensor]
PATCH_WEIGHT = "x_embedder.proj.weight"


def from_image_weights(state: Mapping[str, Tensor], computed_keys: Iterable[str]) -> StateDict:
    """Return weights whose patch embedding has a time axis, of one frame, without the tables that the model computes.

    `computed_keys` are globs. Weights that have that axis already keep it, so the weights of a video model pass as well.
    """
    globs = tuple(computed_keys)
    kept = {key: tensor for key, tensor in state.items() if not any(fnmatchcase(key, glob) for glob in globs)}
    patch = kept.get(PATCH_WEIGHT)
    if patch is not None and patch.dim() == 4:
        kept[PATCH_WEIGHT] = patch[:, :, None]
    return kept
