"""The promise of exact resume, on clips that osora did not make."""

import csv
import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import MEDIA, OSORA, Osora, environment

STEPS = 20
needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason="the real clips of ../shared/media are not on this machine")


def losses(outputs: Path) -> dict[int, float]:
    (metrics,) = outputs.glob("*/metrics.jsonl")
    records = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
    assert len({r["step"] for r in records}) == len(records), "a step was recorded twice"
    return {record["step"]: record["loss"] for record in records}


@pytest.fixture
def real_csv(prepared: Path, osora: Osora, tmp_path: Path) -> Path:
    """The real clips' table as a user makes it: `osora meta`, then captions."""
    done = osora("meta", MEDIA, "real.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "real.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = json.loads((MEDIA / "expected_meta.json").read_text())
    assert {Path(row["path"]).name for row in rows} == set(expected)
    for row in rows:
        row["text"] = f"a clip of {Path(row['path']).stem}"
    with (tmp_path / "captioned.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "captioned.csv"


def train_command(table: Path, outputs: str, *more: str) -> list[str]:
    return [
        str(OSORA), "train", "tiny/train", "--unset", "ae.from_pretrained",
        "--set", f"dataset.data_path={table}", "--set", f"max_steps={STEPS}", "--set", f"outputs={outputs}",
        "--set", "checkpoint.every=3", *more,
    ]  # fmt: skip


def kill_at(command: list[str], cwd: Path, outputs: Path, step: int) -> None:
    """Start a run and SIGKILL it, workers and all, once it has recorded `step` updates."""
    run = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while run.poll() is None:
        metrics = next(outputs.glob("*/metrics.jsonl"), None)
        if metrics is not None and metrics.read_text().count("\n") >= step:
            run.send_signal(signal.SIGKILL)
        time.sleep(0.005)  # polling another process, not waiting for a result
    assert run.returncode == -signal.SIGKILL


@needs_media
def test_a_killed_and_resumed_run_repeats_every_loss(prepared: Path, real_csv: Path, tmp_path: Path) -> None:
    whole = train_command(real_csv, str(tmp_path / "whole"))
    done = subprocess.run(whole, cwd=prepared, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    step = random.randrange(1, STEPS)
    print(f"killed after update {step}")  # shown if the test fails
    broken = train_command(real_csv, str(tmp_path / "broken"))
    kill_at(broken, prepared, tmp_path / "broken", step)
    done = subprocess.run(
        [*broken, "--resume", "auto"], cwd=prepared, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reference = losses(tmp_path / "whole")
    assert sorted(reference) == list(range(1, STEPS + 1))
    assert losses(tmp_path / "broken") == reference


@needs_media
def test_sigterm_saves_and_the_run_goes_on_from_there(prepared: Path, real_csv: Path, tmp_path: Path) -> None:
    command = train_command(real_csv, str(tmp_path / "out"), "--set", "checkpoint.every=1000")
    run = subprocess.Popen(
        command, cwd=prepared, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while run.poll() is None:
        metrics = next((tmp_path / "out").glob("*/metrics.jsonl"), None)
        if metrics is not None and metrics.read_text().count("\n") >= 2:
            run.send_signal(signal.SIGTERM)
            break
        time.sleep(0.005)  # polling another process, not waiting for a result
    stdout, stderr = run.communicate()
    assert run.returncode == 143, stderr
    (folder,) = (tmp_path / "out").iterdir()
    saved = [path.name for path in (folder / "checkpoints").iterdir()]
    done = losses(tmp_path / "out")
    assert saved == [f"step-{max(done):08d}"]
    assert f"stopped by SIGTERM after update {max(done)}" in stdout
