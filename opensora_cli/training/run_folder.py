"""The folder of one run: what was asked for, with what, and everything it wrote."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from opensora_cli.files import write_text
from schemas.errors import OsoraError
from schemas.identity import identity, resume_breakers
from schemas.recipes import RunRecipe
from schemas.resolve import RecipeError, Resolved, resolve

LOCK = "recipe.lock.toml"
_PACKAGES = ("osora", "torch", "transformers", "safetensors", "numpy", "pyarrow", "av", "pydantic")


@dataclass(frozen=True)
class RunFolder:
    """Paths below one run."""

    path: Path

    @property
    def lock(self) -> Path:
        """The resolved recipe, which runs again as it is."""
        return self.path / LOCK

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object per update."""
        return self.path / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        """One JSON object for every look at held-out clips."""
        return self.path / "validation.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        """Pictures of what the model made while it trained, one for every look."""
        return self.path / "samples"

    @property
    def profiles(self) -> Path:
        """Traces of single updates."""
        return self.path / "profiles"

    def faulty(self, update: int) -> Path:
        """The batches of an update whose loss or gradient was not finite."""
        return self.path / "faulty" / f"step-{update:08d}"

    def bad_samples(self, rank: int) -> Path:
        """Clips that one process could not read."""
        return self.path / ("bad_samples.csv" if rank == 0 else f"bad_samples.rank-{rank}.csv")

    def log(self, rank: int) -> Path:
        """The log of one rank."""
        return self.path / "logs" / f"rank-{rank}.log"


def create(resolved: Resolved, recipe: RunRecipe, name: str) -> RunFolder:
    """Make a new run folder `<outputs>/<date>-<time>-<name>` with the locked recipe in it."""
    return create_at(new_folder(Path(recipe.outputs), name), resolved)


def create_at(path: Path, resolved: Resolved) -> RunFolder:
    """Make an empty folder a run folder, with the locked recipe in it."""
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    folder.log(0).parent.mkdir(exist_ok=True)
    write_text(folder.lock, resolved.lock())
    return folder


def new_folder(outputs: Path, name: str) -> Path:
    """Make a new folder `<outputs>/<date>-<time>-<name>` and return its path."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        path = outputs / (f"{stamp}-{name}" if attempt == 0 else f"{stamp}-{name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise OsoraError(
                f"cannot make the run folder {path}: {error.strerror}. Set `outputs` to another folder."
            ) from error
        return path
    raise OsoraError(f"cannot find a free name for a run folder below {outputs}")


def find_latest(recipe: RunRecipe) -> RunFolder | None:
    """Return the newest run below `outputs` that was made from the same recipe, or None."""
    wanted = identity(recipe)
    for lock in sorted(Path(recipe.outputs).glob(f"*/{LOCK}"), reverse=True):
        try:
            other = resolve(lock).recipe
        except RecipeError:  # a folder of another version of osora is not a candidate
            continue
        if other.kind == recipe.kind and identity(other) == wanted:
            return RunFolder(lock.parent)
    return None


def open_existing(path: Path, recipe: RunRecipe) -> RunFolder:
    """Return the run at `path`, after checking that `recipe` may continue it."""
    folder = RunFolder(path)
    if not folder.lock.is_file():
        raise OsoraError(
            f"--resume {path}: not a run folder, it has no {LOCK}. Give a folder below `outputs`, or auto."
        )
    before = resolve(folder.lock).recipe
    if changed := resume_breakers(before, recipe):
        lines = [f"  {key}: {old!r} there, {new!r} here" for key, (old, new) in sorted(changed.items())]
        raise OsoraError(
            f"--resume {path}: that run was made with other values of keys that cannot change during a run:\n"
            + "\n".join(lines)
            + "\nSet them back, or start a new run without --resume."
        )
    return folder


def check_data(folder: RunFolder, fingerprint: str) -> None:
    """Raise OsoraError if the table of clips is not the one the run was started with: its order would be another."""
    try:
        before = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OsoraError(
            f"cannot resume {folder.path}: its run.json does not say which data it used ({error})"
        ) from error
    if before != fingerprint:
        raise OsoraError(
            f"cannot resume {folder.path}: dataset.data_path holds other clips than when the run started, so the order of the "
            "samples would not go on as it was. Start a new run, with model.from_pretrained set to the run's last checkpoint."
        )


def write_run_json(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Record versions, the commit, the machine and the caller's `facts` in `run.json`."""
    record = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "git_commit": _git_commit(),
        **facts,
    }
    write_text(folder.path / "run.json", json.dumps(record, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the source tree osora runs from; None for an installed package."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of it is input
    return done.stdout.strip() or None
