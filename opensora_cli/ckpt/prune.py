"""Removing a run's older checkpoints, or the damaged ones."""

from pathlib import Path

from opensora_cli.training.checkpoint import complete_checkpoints, remove_checkpoint
from schemas.errors import OsoraError


def checkpoints_to_prune(run: Path, keep: int, every: int | None = None) -> list[Path]:
    """Return the checkpoints of a run that are neither among the newest `keep` nor at a multiple of `every` updates.

    Raises OsoraError for a folder that is no run.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise OsoraError(
            f"{run}: no run folder (it would hold checkpoints/). Give the folder that `osora train` printed."
        )
    old = complete_checkpoints(folder)[:-keep]
    return [path for path in old if every is None or int(path.name.removeprefix("step-")) % every]


def prune(checkpoints: list[Path]) -> int:
    """Remove checkpoints, oldest first, and return the bytes that are free again."""
    freed = 0
    for path in checkpoints:
        freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        remove_checkpoint(path)
    return freed
