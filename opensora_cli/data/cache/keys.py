"""What a cache is good for: everything its numbers depend on besides the clip and the caption themselves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from opensora_cli.data.cache.weight_files import WeightFiles
from opensora_models.diffusion.condition import possible_cuts
from schemas.condition import ConditionName
from schemas.denoiser import MMDiTConfig
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe

FORMAT = 1
_LONG_CLIP = 1000
"""Latent frames of a clip that every condition fits into."""
Facts = Mapping[str, Any]
"""Recipe key, or a name for what a key points at -> JSON value."""


@dataclass(frozen=True)
class CacheKey:
    """The facts that entries of one folder share."""

    kind: Literal["latents", "text"]
    facts: Facts

    @cached_property
    def name(self) -> str:
        """The folder's name."""
        return blake2b(canonical(self.facts), digest_size=8).hexdigest()

    def folder(self, cache: Path) -> Path:
        """Return where the entries are, below the cache's folder."""
        return cache / self.kind / self.name


def canonical(facts: object) -> bytes:
    """Return JSON that is the same for equal facts."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def differences(cached: Facts, wanted: Facts) -> list[str]:
    """Return a line for each fact that is not the same."""
    return [
        f"{key}: cached with {_short(cached.get(key))}, the recipe has {_short(wanted.get(key))}"
        for key in sorted({*cached, *wanted})
        if cached.get(key) != wanted.get(key)
    ]


def cache_folder(recipe: TrainRecipe) -> Path:
    """Return where the recipe's caches are. Raises OsoraError if it names no table."""
    dataset = recipe.dataset
    if dataset.cache_dir != "auto":
        return Path(dataset.cache_dir).expanduser()
    if dataset.data_path is None:
        raise OsoraError("dataset.data_path is not set: name the table of clips (`osora meta` makes one).")
    table = Path(dataset.data_path)
    return table.with_name(f"{table.name}.cache")


def stored_dtype(recipe: TrainRecipe) -> str:
    """Return the precision on disk: bf16, fp16 or fp32."""
    return recipe.dtype if recipe.dataset.cached_dtype == "recipe" else recipe.dataset.cached_dtype


def latents_key(recipe: TrainRecipe, files: WeightFiles) -> CacheKey:
    """Return what latents depend on. Raises OsoraError where the autoencoder's weights are not named or not there."""
    if recipe.ae.from_pretrained is None:
        raise OsoraError("ae.from_pretrained is not set: latents of random weights are of no use. Name the weights.")
    config = {f"ae.{name}": value for name, value in recipe.ae.model_dump(mode="json").items()}
    ae = recipe.ae
    weights = condition_weights(recipe)
    cuts = possible_cuts(weights, _LONG_CLIP, time_stride=ae.time_compression_ratio, causal=ae.causal)
    facts = {
        **config,
        "ae.from_pretrained": files.autoencoder(recipe.ae.from_pretrained),
        "condition": [part_name(frames, head=head) for frames, head in cuts],
        "dataset.reader": recipe.dataset.reader,
        "dataset.transform_name": recipe.dataset.transform_name,
    }
    return CacheKey("latents", {**facts, **_rules(recipe), **_precision(recipe)})


def condition_weights(recipe: TrainRecipe) -> Mapping[ConditionName, float]:
    """Return the conditions whose frames are encoded apart from their clips; a denoiser of latents is given part of those."""
    takes = isinstance(recipe.model, MMDiTConfig) and recipe.model.takes_frames
    return recipe.condition.weights() if takes else {}


def text_key(recipe: TrainRecipe, files: WeightFiles) -> CacheKey:
    """Return what text features depend on. Raises OsoraError where an encoder is not on this machine."""
    facts: dict[str, Any] = {}
    for name, encoder in (("t5", recipe.text.t5), ("clip", recipe.text.clip)):
        if name not in recipe.model.texts:
            continue
        key = f"text.{name}"
        facts[f"{key}.from_pretrained"] = files.text_encoder(encoder.from_pretrained, key)
        facts[f"{key}.max_length"] = encoder.max_length
        facts |= {f"{key}.{part}": value for part, value in encoder.changes().items()}
    return CacheKey("text", {**facts, **_precision(recipe)})


def latents_pass(recipe: TrainRecipe, table: str, compression: int) -> Facts:
    """Return what decides which windows of a table's clips are encoded; batch sizes do not."""
    buckets = {
        name: {str(frames): chance for frames, (chance, _) in lengths.items()}
        for name, lengths in recipe.buckets.items()
    }
    return {
        "buckets": json.loads(canonical(buckets)),
        "clips of dataset.data_path": table,
        "dataset.fps_max": recipe.dataset.fps_max,
        "pixels per token": compression,
        "seed": recipe.seed,
        **_rules(recipe),
    }


def text_pass(recipe: TrainRecipe, table: str) -> Facts:
    """Return what decides which captions a table gives."""
    return {
        "clips of dataset.data_path": table,
        "dataset.fps_max": recipe.dataset.fps_max,
        "dataset.vmaf": recipe.dataset.vmaf,
        **_rules(recipe),
    }


def part_name(frames: int, *, head: bool) -> str:
    """Return what the latents of frames encoded apart are called in an entry."""
    return f"{'head' if head else 'tail'}-{frames}"


def _rules(recipe: TrainRecipe) -> dict[str, Any]:
    """Return how clips are chosen and cut, where that is not by the usual rules: these are as old as the caches."""
    dataset = recipe.dataset
    if dataset.rules == "open-sora-2.0":
        return {}
    return {"dataset.rules": dataset.rules, "dataset.frame_interval": dataset.frame_interval}


def _precision(recipe: TrainRecipe) -> dict[str, Any]:
    return {"format": FORMAT, "dtype": recipe.dtype, "dataset.cached_dtype": stored_dtype(recipe)}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
