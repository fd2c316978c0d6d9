"""What the files of a checkpoint were when it was written: sizes and checksums, in a manifest that is written last."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from opensora_cli.files import write_text
from schemas.errors import OsoraError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class WrittenFile:
    """A file's path below the checkpoint, its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str


def write_manifest(checkpoint: Path) -> None:
    """List every file below a checkpoint; call it when all others are there. Raises OsoraError when the disk refuses."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != MANIFEST]
    entries = {str(path.relative_to(checkpoint)): _entry(path) for path in files}
    write_text(checkpoint / MANIFEST, json.dumps({"files": entries}, indent=1) + "\n")


def read_manifest(checkpoint: Path) -> list[WrittenFile]:
    """Return what a checkpoint holds. Raises OsoraError where that cannot be told."""
    try:
        entries = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        return [WrittenFile(str(path), int(entry["bytes"]), str(entry["sha256"])) for path, entry in entries.items()]
    except FileNotFoundError as error:
        raise OsoraError(
            f"{checkpoint} has no {MANIFEST}: it is not whole, or an earlier version of osora wrote it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OsoraError(f"{checkpoint / MANIFEST} is damaged: {error}") from error


def damages(
    checkpoint: Path, *, checksums: bool = False, read: Callable[[WrittenFile], object] | None = None
) -> Iterator[str]:
    """Yield what is wrong with each file of a checkpoint: its size, which costs nothing, or also its contents.

    `read` is told of every file that was looked at.
    """
    try:
        files = read_manifest(checkpoint)
    except OsoraError as error:
        yield str(error)
        return
    for file in files:
        path = checkpoint / file.path
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            yield f"{path} is missing"
        elif size != file.size:
            yield f"{path} has {size} bytes, and {file.size} were written"
        elif checksums and _sha256(path) != file.sha256:
            yield f"{path} is not what was written: its SHA-256 is another"
        if read is not None:
            read(file)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is there in full size."""
    return next(damages(checkpoint), None) is None


def _entry(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
