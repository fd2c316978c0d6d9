"""From a recipe to the caches that it trains from: found, checked, or explained."""

from pathlib import Path

from opensora_cli.data.cache.inputs import CachedInputs, CutPlan
from opensora_cli.data.cache.keys import (
    CacheKey,
    cache_folder,
    condition_weights,
    latents_key,
    latents_pass,
    text_key,
    text_pass,
)
from opensora_cli.data.cache.reader import CacheReader, check_pass, find_cache
from opensora_cli.data.cache.weight_files import WeightFiles
from opensora_cli.distributed.process import DTYPES
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe

MEMO = "weights.json"
"""Where a cache's folder keeps the fingerprints of encoders' weights."""


def open_caches(recipe: TrainRecipe, notes: list[str]) -> CachedInputs | None:
    """Return the caches that a recipe asks for, None if it asks for none.

    Raises OsoraError that says why one cannot be used; with dataset.on_cache_miss = "encode" that becomes a note.
    """
    dataset = recipe.dataset
    if not dataset.cached_video and not dataset.cached_text:
        return None
    cache = cache_folder(recipe)
    files = WeightFiles(cache / MEMO)
    latents = _found(recipe, cache, latents_key(recipe, files), notes) if dataset.cached_video else None
    text = _found(recipe, cache, text_key(recipe, files), notes) if dataset.cached_text else None
    return CachedInputs(
        latents,
        text,
        cut_plan(recipe),
        recipe.model.texts,
        DTYPES[recipe.dtype],
        dataset.on_cache_miss == "encode",
    )


def check_passes(cached: CachedInputs, recipe: TrainRecipe, table: str, compression: int, notes: list[str]) -> None:
    """See that the caches were filled for this table of clips, these buckets and this seed; as `open_caches`."""
    checks = (
        (cached.latents, latents_pass(recipe, table, compression), recipe.dataset.cached_windows),
        (cached.text, text_pass(recipe, table), 1),
    )
    for reader, wanted, windows in checks:
        if reader is not None:
            try:
                check_pass(reader, wanted, windows)
            except OsoraError as error:
                _excuse(recipe, error, notes)


def cut_plan(recipe: TrainRecipe) -> CutPlan:
    """Return what the recipe's conditions encode apart from the whole clip."""
    weights = condition_weights(recipe)
    return CutPlan(weights, recipe.ae.time_compression_ratio, recipe.ae.causal)


def _found(recipe: TrainRecipe, cache: Path, key: CacheKey, notes: list[str]) -> CacheReader | None:
    try:
        return find_cache(cache, key)
    except OsoraError as error:
        _excuse(recipe, error, notes)
        return None


def _excuse(recipe: TrainRecipe, error: OsoraError, notes: list[str]) -> None:
    if recipe.dataset.on_cache_miss == "error":
        raise OsoraError(f'{error}\nTo encode while training instead: dataset.on_cache_miss = "encode".') from error
    notes.append(f"what is not cached is encoded while training: {error}")
