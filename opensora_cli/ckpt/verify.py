"""Reading checkpoints back: whether every file is what was written."""

from pathlib import Path

from opensora_cli.progress import JobProgress
from opensora_cli.training.checkpoint import complete_checkpoints
from opensora_cli.training.checkpoint_manifest import MANIFEST, damages, read_manifest
from schemas.errors import OsoraError


def verify(path: Path) -> dict[Path, list[str]]:
    """Read every file of a run's checkpoints, or of the one given; return what is wrong with each, nothing for whole ones.

    Raises OsoraError for a folder that is neither.
    """
    checkpoints = _checkpoints(path)
    total = sum(len(read_manifest(one)) for one in checkpoints if (one / MANIFEST).is_file())
    with JobProgress("verify", total) as display:
        return {
            one: list(damages(one, checksums=True, read=lambda file: display.advance(file.path))) for one in checkpoints
        }


def _checkpoints(path: Path) -> list[Path]:
    if (path / "checkpoints").is_dir():
        return complete_checkpoints(path / "checkpoints")
    if path.parent.name == "checkpoints" and path.is_dir():
        return [path]
    raise OsoraError(f"{path}: neither a run folder nor one of its checkpoints; other weights have no checksums.")
