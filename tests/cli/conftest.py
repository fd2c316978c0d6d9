"""Runs of the real program: `osora` in a subprocess, and one demo that several tests look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MEDIA = REPOSITORY.parent / "shared" / "media"
OSORA = Path(sys.executable).parent / "osora"

Osora = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """One thread per process and no terminal: what a log file would see."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1", "PYTHONWARNINGS": "default"}


@pytest.fixture
def osora(tmp_path: Path) -> Osora:
    """Run `osora ARGUMENTS` in the test's own folder, or in `cwd`."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [str(OSORA), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `osora demo run` was run, as `make demo` runs it."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [str(OSORA), "demo", "run"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `osora demo prepare` was run: clips, table, tiny text encoders, nothing trained."""
    folder = tmp_path_factory.mktemp("prepared")
    done = subprocess.run(
        [str(OSORA), "demo", "prepare", "--clips", "12"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
