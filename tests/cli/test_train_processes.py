"""`osora train --nproc` as a user runs it, on made clips."""

import json
from pathlib import Path

from tests.cli.conftest import Osora


def test_two_processes_train_one_run(prepared: Path, osora: Osora, tmp_path: Path) -> None:
    sets = {
        "parallel.plugin": "fsdp",
        "max_steps": 3,
        "optim.warmup_steps": 1,
        "logging.log_every": 1,
        "outputs": tmp_path / "runs",
    }
    options = [option for key, value in sets.items() for option in ("--set", f"{key}={value}")]
    done = osora("train", "tiny/train", "--nproc", 2, "--unset", "ae.from_pretrained", *options, cwd=prepared)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("run folder:") == 1
    assert "3/3" in done.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["world_size"] == 2
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["samples"] for record in records] == [4, 4, 4]
    # Each process logs the mean over both, so the lines of the two agree in the loss.
    losses = [
        [line.split(" loss ")[1].split()[0] for line in (run / "logs" / f"rank-{rank}.log").read_text().splitlines()]
        for rank in (0, 1)
    ]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert (run / "checkpoints" / "step-00000003" / "ema.safetensors").is_file()


def test_several_machines_need_a_meeting_point(osora: Osora) -> None:
    for options in (["--nnodes", "2"], ["--rdzv", "gpu1:29400"]):
        done = osora("train", "tiny/train", *options)
        assert done.returncode == 2
        assert "--nnodes above 1 and --rdzv HOST:PORT go together" in done.stderr
    done = osora("train", "tiny/train", "--nnodes", "2", "--rdzv", "gpu1")
    assert done.returncode == 2
    assert "give HOST:PORT" in done.stderr
