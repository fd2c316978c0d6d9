"""What the RECIPE of `osora sample`, `vae-sample` or `vae-stats` stands for: a recipe, or a run that trained the model."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opensora_cli.sampling.weights import newest_checkpoint
from schemas.errors import OsoraError
from schemas.recipes import RECIPES

LOCK = "recipe.lock.toml"
MODEL_KEYS = {"train": "model.from_pretrained", "vae-train": "ae.from_pretrained"}
"""Kind of a training run -> where a recipe names what it trained."""
OF_THE_TRAINING_JOB = {"parallel"}
"""Tables that both kinds have, whose values suit the machines of the training run."""


@dataclass(frozen=True)
class Source:
    """Arguments for `schemas.resolve.resolve`."""

    recipe: str
    unsets: list[str] = field(default_factory=list)
    injected: dict[str, dict[str, Any]] = field(default_factory=dict)


def find_source(argument: str, sets: Sequence[str] = (), kind: str = "sample") -> Source:
    """Return how to resolve `argument` as `kind`: a recipe's name or path, a run folder, its lock, or a checkpoint.

    Of a training run its models, texts and precision are kept; what only training needs is un-set, the job starts from
    its defaults, and the weights are the checkpoint's (the newest one of a run), unless `sets` name others.
    Raises OsoraError for a folder that is neither, and for a run that trained another kind of model.
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
    trained = str(values.get("kind"))
    if trained not in MODEL_KEYS:
        return Source(str(lock))
    if (trained == "train") != (kind == "sample"):
        what = "a denoiser" if trained == "train" else "an autoencoder, which makes no clips by itself"
        hint = "" if trained == "train" else f" with --set ae.from_pretrained={newest_checkpoint(lock.parent)}"
        raise OsoraError(f"{argument}: this run trained {what}. Give a recipe for {kind}{hint}.")
    return _of_run(lock, values, kind, checkpoint or newest_checkpoint(lock.parent), sets)


def _of_run(lock: Path, values: dict[str, Any], kind: str, checkpoint: Path, sets: Sequence[str]) -> Source:
    injected: dict[str, Any] = {"kind": kind}
    key = MODEL_KEYS[str(values["kind"])]
    given = any(text.split("=", 1)[0].strip() == key for text in sets)
    if "lora" in values:  # its weights stay those that the adapters were trained on
        if not given and "from_pretrained" not in values.get("model", {}):
            raise OsoraError(
                f"{checkpoint}: its adapters were trained on random weights, which no file has. Name other weights with "
                f"--set {key}=..."
            )
        injected["adapters"] = {str(checkpoint): 1.0}
    elif not given:
        table, name = key.split(".")
        injected[table] = {name: str(checkpoint)}
    return Source(
        str(lock),
        unsets=[name for name in values if name in OF_THE_TRAINING_JOB or name not in RECIPES[kind].model_fields],
        injected={f"<checkpoint {checkpoint.name}>": injected},
    )


def _read(lock: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(lock.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OsoraError(f"{lock}: cannot read the run's recipe: {error}") from error
