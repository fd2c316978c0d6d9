"""Every parallel mode trains what one process trains, and its checkpoints open in every other."""

from pathlib import Path

import pytest

from tests.distributed import jobs
from tests.distributed.modes import MODES, RELOADED, TESTED, Mode
from tests.distributed.train_tiny import ALONE, copy_state

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", TESTED)
def test_ten_updates_are_those_of_one_process(trained: Path, name: str) -> None:
    found = jobs.differences(trained / name, jobs.reference(trained, MODES[name]))
    assert max(found.values()) < MODES[name].tolerance, found
    losses = [record["loss"] for record in jobs.records(trained / name)]
    assert max(losses) - min(losses) > 100 * TOLERANCE, "nothing was learned, so nothing was compared"


@pytest.mark.parametrize("name", RELOADED)
def test_a_checkpoint_of_two_processes_opens_in_one(trained: Path, tmp_path: Path, name: str) -> None:
    mode = Mode(1, {}, 1, fused=MODES[name].fused, family=MODES[name].family)
    copy_state(trained / name, tmp_path / "one", mode, ALONE)
    assert jobs.same_state(tmp_path / "one", trained / name)


@pytest.mark.parametrize("name", RELOADED)
def test_a_checkpoint_of_one_process_opens_in_two(trained: Path, name: str) -> None:
    source = jobs.reference(trained, MODES[name])
    assert jobs.same_state(trained / f"{source.name}>{name}", source)
