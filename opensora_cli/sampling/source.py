"""What the RECIPE of `osora sample` stands for: a recipe, or a training run whose models are to be sampled."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opensora_cli.sampling.weights import newest_checkpoint
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe

LOCK = "recipe.lock.toml"
MODEL_KEY = "model.from_pretrained"
OF_THE_TRAINING_JOB = {"parallel"}
"""Tables that both kinds have, whose values suit the machines of the training run."""


@dataclass(frozen=True)
class Source:
    """Arguments for `schemas.resolve.resolve`."""

    recipe: str
    unsets: list[str] = field(default_factory=list)
    injected: dict[str, dict[str, Any]] = field(default_factory=dict)


def find_source(argument: str, sets: Sequence[str] = ()) -> Source:
    """Return how to resolve `argument`: a recipe's name or path, a run folder, its lock, or one of its checkpoints.

    Of a training run its models, texts and precision are kept; what only training needs is un-set, sampling starts from
    its defaults, and the weights are the checkpoint's (the newest one of a run), unless `sets` name others.
    Raises OsoraError for a folder that is neither, and for a run that trained no denoiser.
    """
    path = Path(argument).expanduser()
    checkpoint = path if path.is_dir() and path.parent.name == "checkpoints" else None
    folder = path.parent.parent if checkpoint else path
    lock = folder / LOCK if folder.is_dir() else folder
    if folder.is_dir() and not lock.is_file():
        raise OsoraError(
            f"{argument}: neither a run folder (it would hold {LOCK}) nor one of its checkpoints "
            "(<run folder>/checkpoints/step-...). Give one of these, or a recipe's name or path."
        )
    if lock.name != LOCK:
        return Source(argument)
    values = _read(lock)
    if values.get("kind") == "vae-train":
        raise OsoraError(
            f"{argument}: this run trained an autoencoder, which makes no clips by itself. Give a recipe for sampling, with "
            f"--set ae.from_pretrained={newest_checkpoint(lock.parent)}."
        )
    if values.get("kind") != "train":
        return Source(str(lock))
    return _of_run(lock, values, checkpoint or newest_checkpoint(lock.parent), sets)


def _of_run(lock: Path, values: dict[str, Any], checkpoint: Path, sets: Sequence[str]) -> Source:
    injected: dict[str, Any] = {"kind": "sample"}
    if not any(text.split("=", 1)[0].strip() == MODEL_KEY for text in sets):
        injected["model"] = {"from_pretrained": str(checkpoint)}
    return Source(
        str(lock),
        unsets=[key for key in values if key in OF_THE_TRAINING_JOB or key not in SampleRecipe.model_fields],
        injected={f"<checkpoint {checkpoint.name}>": injected},
    )


def _read(lock: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(lock.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OsoraError(f"{lock}: cannot read the run's recipe: {error}") from error
