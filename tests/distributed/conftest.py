"""One training of every mode, for all tests."""

from pathlib import Path

import pytest

from tests.distributed import jobs
from tests.distributed.modes import MODES, RELOADED, TESTED


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all modes' runs, and of states that were loaded into another layout and saved again."""
    out = tmp_path_factory.mktemp("modes")
    one_to_two = [f"{jobs.reference(out, MODES[name]).name}>{name}" for name in RELOADED]
    for processes in (2, 4):
        names = jobs.of_size(TESTED, processes)
        jobs.train(processes, out, *names, *(one_to_two if processes == 2 else ()))
    return out
