"""Weights of image models as the video models that start from them hold them."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
PATCH_WEIGHT = "x_embedder.proj.weight"
NULL_CAPTION = "y_embedder.y_embedding"


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


def fit_null_caption(state: StateDict, tokens: int) -> StateDict:
    """Return weights whose null caption is cut to so many tokens, or goes on with its last one."""
    null_LD = state.get(NULL_CAPTION)
    if null_LD is None or len(null_LD) == tokens:
        return state
    more_LD = null_LD[-1:].expand(max(tokens - len(null_LD), 0), -1)
    return {**state, NULL_CAPTION: torch.cat([null_LD[:tokens], more_LD])}
