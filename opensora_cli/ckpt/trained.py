"""What a run trained: its weights, and how they lie."""

from dataclasses import dataclass
from pathlib import Path

from opensora_cli.sampling.weights import EMA, MODEL, newest_checkpoint
from opensora_cli.training.run_folder import LOCK
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve


@dataclass(frozen=True)
class Trained:
    """A checkpoint's weights, and the config of the denoiser that they are (None for an autoencoder)."""

    weights: Path
    denoiser: MMDiTConfig | None


def trained(path: Path, ema: bool | None = None) -> Trained:
    """Return the weights of a run's newest checkpoint, or of the checkpoint given; `ema` None takes the average if there is one.

    Raises OsoraError for a folder that is neither, and for an average that was not kept.
    """
    checkpoint = newest_checkpoint(path) if (path / "checkpoints").is_dir() else path
    lock = checkpoint.parent.parent / LOCK
    if not lock.is_file():
        raise OsoraError(
            f"{path}: neither a run folder nor one of its checkpoints. Other weights: `osora ckpt convert`."
        )
    averaged = checkpoint / EMA
    if ema and not averaged.is_file():
        raise OsoraError(f"--ema: {checkpoint} has no {EMA}; the run kept no average. Leave --ema out.")
    chosen = averaged if averaged.is_file() and ema is not False else checkpoint / MODEL
    recipe = resolve(str(lock)).recipe
    return Trained(chosen, recipe.model if isinstance(recipe, TrainRecipe) else None)
