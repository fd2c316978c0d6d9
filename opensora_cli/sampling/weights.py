"""Which file a recipe's `from_pretrained` means: a file, a checkpoint, or the newest checkpoint of a run."""

from pathlib import Path

from opensora_cli.training.checkpoint import ADAPTERS, complete_checkpoints
from opensora_models.adapter import is_adapter
from opensora_models.hub import local_path
from schemas.errors import OsoraError

MODEL, EMA = "model.safetensors", "ema.safetensors"


def find_weights(source: str, key: str, *, ema: bool = False) -> Path:
    """Return the weights at `source`, the value of the recipe's `key`; with `ema`, a checkpoint's averaged ones.

    A folder that is neither a run nor one of its checkpoints is returned as it is. Raises OsoraError when nothing is there.
    """
    path = local_path(source)
    if (path / "checkpoints").is_dir():
        path = newest_checkpoint(path)
    if not path.exists():
        raise OsoraError(
            f"{key} = {source!r}: there are no weights here. Give a .safetensors file, a checkpoint folder, a run folder, or "
            f"the name of a model that `hf download` fetched."
        )
    if path.is_file():
        return path
    if ema and not (path / EMA).is_file() and not (path / ADAPTERS["model"]).is_dir():
        raise OsoraError(
            f"--ema: {path} has no {EMA}; the run kept no average (optim.ema_decay was not set). Leave --ema out."
        )
    if (path / ADAPTERS["model"]).is_dir():
        raise OsoraError(
            f"{key} = {source!r}: the run trained adapters, not a whole model. Name it under [adapters], beside the weights "
            "that it was trained on, or write both as one with `osora ckpt merge-lora`."
        )
    chosen = path / (EMA if ema else MODEL)
    return chosen if chosen.is_file() else path


def find_adapter(source: str, *, ema: bool = False) -> Path:
    """Return the adapter at `source`, a file, a folder, a run or a checkpoint; with `ema`, a checkpoint's averaged one.

    Raises OsoraError when none is there.
    """
    path = Path(source).expanduser()
    if (path / "checkpoints").is_dir():
        path = newest_checkpoint(path)
    if path.is_file() or is_adapter(path):
        return path
    if not (path / ADAPTERS["model"]).is_dir():
        raise OsoraError(
            f"adapters: there is no adapter at {source!r}. Give a run that was trained with [lora], one of its checkpoints, "
            "or an adapter's folder or file (peft, diffusers)."
        )
    if ema and not (path / ADAPTERS["ema"]).is_dir():
        raise OsoraError(f"--ema: {path} has no averaged adapter (optim.ema_decay was not set). Leave --ema out.")
    return path / ADAPTERS["ema" if ema else "model"]


def newest_checkpoint(run_folder: Path) -> Path:
    """Return the last complete checkpoint of a run. Raises OsoraError when it has none yet."""
    complete = complete_checkpoints(run_folder / "checkpoints")
    if not complete:
        raise OsoraError(
            f"{run_folder}: the run has no complete checkpoint yet. Wait for one, or lower checkpoint.every."
        )
    return complete[-1]
