"""Which file a recipe's `from_pretrained` means: a file, a checkpoint, or the newest checkpoint of a run."""

from pathlib import Path

from opensora_cli.training.checkpoint import complete_checkpoints
from schemas.errors import OsoraError

MODEL, EMA = "model.safetensors", "ema.safetensors"


def find_weights(source: str, key: str, *, ema: bool = False) -> Path:
    """Return the weights at `source`, the value of the recipe's `key`; with `ema`, a checkpoint's averaged ones.

    A folder that is neither a run nor one of its checkpoints is returned as it is. Raises OsoraError when nothing is there.
    """
    path = Path(source).expanduser()
    if (path / "checkpoints").is_dir():
        path = newest_checkpoint(path)
    if not path.exists():
        raise OsoraError(
            f"{key} = {source!r}: there are no weights here. Give a .safetensors file, a checkpoint folder or a run folder."
        )
    if path.is_file():
        return path
    if ema and not (path / EMA).is_file():
        raise OsoraError(
            f"--ema: {path} has no {EMA}; the run kept no average (optim.ema_decay was not set). Leave --ema out."
        )
    chosen = path / (EMA if ema else MODEL)
    return chosen if chosen.is_file() else path


def newest_checkpoint(run_folder: Path) -> Path:
    """Return the last complete checkpoint of a run. Raises OsoraError when it has none yet."""
    complete = complete_checkpoints(run_folder / "checkpoints")
    if not complete:
        raise OsoraError(
            f"{run_folder}: the run has no complete checkpoint yet. Wait for one, or lower checkpoint.every."
        )
    return complete[-1]
