"""The files of one sample, and whether they are there already."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from opensora_cli.sampling.request import Sample
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe

PACKAGES = ("osora", "torch", "transformers", "av")
SEED_FREE = {"seed", "num_samples", "batch_size", "save_dir"}
"""Sampling keys that do not change a sample: its own seed is recorded by itself."""


@dataclass(frozen=True)
class Output:
    """Where a sample goes. The record is written last: a sample is complete once it has one."""

    sample: Sample
    media: Path
    record: Path


def plan_outputs(samples: Sequence[Sample], save_dir: Path, *, image: bool) -> list[Output]:
    """Name the files of every sample after its index in the job."""
    suffix = "png" if image else "mp4"
    return [
        Output(sample, save_dir / f"sample-{sample.index:04d}.{suffix}", save_dir / f"sample-{sample.index:04d}.json")
        for sample in samples
    ]


def outputs_to_make(
    outputs: Sequence[Output], recipe: SampleRecipe, weights: dict[str, str | None], *, overwrite: bool, resume: bool
) -> list[Output]:
    """Return what is still to be made. `resume` skips finished samples, `overwrite` makes all of them again.

    Raises OsoraError when a file is in the way, or when a finished sample was made from something else.
    """
    if overwrite and resume:
        raise UsageError("--overwrite makes every sample again and --resume skips the finished ones: give one of them.")
    if overwrite:
        return list(outputs)
    if resume:
        return [output for output in outputs if not _finished(output, recipe, weights)]
    if taken := [path for output in outputs for path in (output.media, output.record) if path.exists()]:
        raise OsoraError(
            f"{taken[0]} exists already ({len(taken)} such files). Use --resume to make only what is missing, "
            "--overwrite to make everything again, or another --save-dir."
        )
    return list(outputs)


def identity(sample: Sample, recipe: SampleRecipe, weights: dict[str, str | None]) -> dict[str, Any]:
    """Return everything that decides how a sample comes out, as JSON values."""
    return {
        "prompt": sample.prompt,
        "negative_prompt": sample.negative,
        "seed": sample.seed,
        "references": [str(path) for path in sample.references],
        "sampling": recipe.sampling.model_dump(mode="json", exclude=SEED_FREE),
        "model": recipe.model.model_dump(mode="json"),
        "ae": recipe.ae.model_dump(mode="json"),
        "text": recipe.text.model_dump(mode="json"),
        "dtype": recipe.dtype,
        "weights": weights,
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that a sample depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def _finished(output: Output, recipe: SampleRecipe, weights: dict[str, str | None]) -> bool:
    if not (output.record.is_file() and output.media.is_file()):
        return False
    try:
        record = json.loads(output.record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OsoraError(f"--resume: {output.record} is not the record of a sample: {error}. Remove it.") from error
    wanted = identity(output.sample, recipe, weights)
    changed = sorted(key for key, value in wanted.items() if record.get(key) != value)
    if changed:
        raise OsoraError(
            f"--resume: {output.media} was made with another {', '.join(changed)}. Use --overwrite to make it again, or "
            "another --save-dir."
        )
    return True
