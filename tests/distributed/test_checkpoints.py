"""A job's checkpoints when something has gone wrong with them."""

import shutil
from pathlib import Path

from tests.distributed import jobs


def test_a_truncated_file_is_refused_by_name_and_the_checkpoint_before_it_offered(
    trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "ddp-2"
    shutil.copytree(trained / "ddp-2", run)
    last = run / "checkpoints" / "step-00000010"
    shutil.copytree(last, last.with_name("step-00000005"))
    (state,) = (last / "state").iterdir()
    size = state.stat().st_size
    with state.open("r+b") as file:
        file.truncate(size // 2)
    job = jobs.start(2, "-m", "tests.distributed.train_tiny", tmp_path, 1000, "ddp-2")
    _, errors = job.communicate()
    assert job.returncode == 1
    assert f"cannot resume from {last}: {state} has {size // 2} bytes, and {size} were written" in errors
    assert (
        f"step-00000005, is whole: to go on from there, remove what is damaged with `osora ckpt prune {run}" in errors
    )
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []
