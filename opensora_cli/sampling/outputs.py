"""The files of one sample: what they are called, and whether they are there already."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from opensora_cli.sampling.request import Sample
from opensora_cli.sampling.saving import suffix_of
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe

PACKAGES = ("osora", "torch", "transformers", "av")
SEED_FREE = {"seed", "num_samples", "batch_size", "cfg_branches", "save_dir", "names", "language_model"}
"""Sampling keys that do not change a sample: its own seed is recorded by itself, and so is what a language model wrote."""
SHEET, LOCK = "contact-sheet", "recipe.lock"
LONGEST_NAME = 230  # bytes; file systems take 255, with the suffix and the mark of an unfinished file


@dataclass(frozen=True)
class Output:
    """Where a sample goes. The record is written last: a sample is complete once it has one."""

    sample: Sample
    media: Path
    record: Path
    image: Path | None = None
    """The first frame that an image model made."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that is written for the sample."""
        return (self.media, self.record) if self.image is None else (self.media, self.image, self.record)


def plan_outputs(samples: Sequence[Sample], save_dir: Path) -> list[Output]:
    """Name the files of every sample as `sampling.names` says.

    Raises OsoraError for a missing name, for one that no file can have, and for two samples with one name.
    """
    stems = [_stem(sample) for sample in samples]
    for stem, sample in zip(stems, samples, strict=True):
        if "/" in stem or "\\" in stem or "\0" in stem or stem.startswith(".") or len(stem.encode()) > LONGEST_NAME:
            raise OsoraError(
                f"{sample.label}: {stem!r} cannot be the name of a file (no slash, no dot in front, at most "
                f"{LONGEST_NAME} bytes). Change it, or use --names index."
            )
    shared, times = Counter([SHEET, LOCK, *stems]).most_common(1)[0]
    if times > 1:
        raise OsoraError(f"{times} files would be called {shared!r}. Give each row its own name, or use --names index.")
    return [
        Output(
            sample,
            save_dir / f"{stem}{suffix_of(sample.config)}",
            save_dir / f"{stem}.json",
            save_dir / f"{stem}-image.png" if sample.needs_image else None,
        )
        for stem, sample in zip(stems, samples, strict=True)
    ]


def _stem(sample: Sample) -> str:
    """Return a file's name without suffix; several samples of a row are told apart by `_1`, `_2`, in VBench's way by `-0`."""
    match sample.config.names:
        case "prompt":
            return f"{sample.prompt.strip('.')}-{sample.number}"
        case "name" if sample.name is None:
            raise OsoraError(
                f'{sample.label}: sampling.names = "name", and the row has none. Fill the column name, or use "auto".'
            )
        case "index":
            stem = f"sample-{sample.row:04d}"
        case _:
            stem = sample.name or f"sample-{sample.row:04d}"
    return f"{stem}_{sample.number}" if sample.number else stem


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
    if taken := [path for output in outputs for path in output.files if path.exists()]:
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
        "sampling": sample.config.model_dump(mode="json", exclude=SEED_FREE),
        "model": recipe.model.model_dump(mode="json"),
        "ae": recipe.ae.model_dump(mode="json"),
        "text": recipe.text.model_dump(mode="json"),
        "t2i2v": None if recipe.t2i2v is None else recipe.t2i2v.model_dump(mode="json"),
        "dtype": recipe.dtype,
        "weights": weights,
    }


def recipe_hash(lock: str) -> str:
    """Return a hash of a resolved recipe: equal ones were run with the same values of every key."""
    return hashlib.sha256(lock.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages that a sample depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def _finished(output: Output, recipe: SampleRecipe, weights: dict[str, str | None]) -> bool:
    if not output.record.is_file():
        return False
    try:
        record = json.loads(output.record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OsoraError(f"--resume: {output.record} is not the record of a sample: {error}. Remove it.") from error
    wanted = identity(output.sample, recipe, weights)
    changed = sorted(key for key, value in wanted.items() if record.get(key) != value)
    if changed:
        raise OsoraError(
            f"--resume: the sample of {output.record} was made with another {', '.join(changed)}. Use --overwrite to make "
            "it again, or another --save-dir."
        )
    return all(path.is_file() for path in output.files)
