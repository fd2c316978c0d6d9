"""What a run trained: its weights, and how they lie."""

from dataclasses import dataclass
from pathlib import Path

from opensora_cli.sampling.weights import EMA, MODEL, newest_checkpoint
from opensora_cli.training.checkpoint import ADAPTERS
from opensora_cli.training.run_folder import LOCK
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve


@dataclass(frozen=True)
class Trained:
    """A checkpoint's weights, and the config of the denoiser that they are (None for an autoencoder).

    Where adapters were trained, `weights` is the folder of these.
    """

    weights: Path
    denoiser: MMDiTConfig | None

    @property
    def adapter(self) -> MMDiTConfig | None:
        """The config of the denoiser that the weights are an adapter of; None for whole weights."""
        return self.denoiser if self.weights.is_dir() else None


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
    adapters = (checkpoint / ADAPTERS["model"]).is_dir()
    plain, averaged = (
        checkpoint / name for name in ((ADAPTERS["model"], ADAPTERS["ema"]) if adapters else (MODEL, EMA))
    )
    if ema and not averaged.exists():
        raise OsoraError(f"--ema: {checkpoint} has no {averaged.name}; the run kept no average. Leave --ema out.")
    chosen = averaged if averaged.exists() and ema is not False else plain
    return Trained(chosen, _denoiser(lock))


def trained_config(path: Path) -> MMDiTConfig | None:
    """Return the config of the denoiser that a run or checkpoint trained; None for other weights."""
    lock = path / LOCK if (path / "checkpoints").is_dir() else path.parent.parent / LOCK
    return _denoiser(lock) if lock.is_file() else None


def _denoiser(lock: Path) -> MMDiTConfig | None:
    recipe = resolve(str(lock)).recipe
    return recipe.model if isinstance(recipe, TrainRecipe) and isinstance(recipe.model, MMDiTConfig) else None
