"""Jobs of many prompts: killed and resumed, and shared out over processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.sampling import Pipeline, Request
from tests.cli.conftest import Osora, environment

ROWS = 20
QUICK = ("--unset", "model.from_pretrained", "--unset", "ae.from_pretrained", "--num-steps", "1", "--num-frames", "1")
KILLED = """
import os, signal, sys
from opensora_cli.sampling import files
from opensora_cli.main import main

write, written = files.write_record, []

def write_then_die(path, record):
    if len(written) == 7:  # the eighth clip is there, its record is not
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
    return write(path, record)

files.write_record = write_then_die
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    prepare_demo(folder / "demo", clips=2, seed=0)
    rows = "\n".join(f'"prompt {row}, with a comma"' for row in range(ROWS))
    (folder / "prompts.csv").write_text(f"text\n{rows}\n")
    return folder


def media(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("sample-*.png")}


def test_killed_in_the_middle_and_resumed_it_makes_exactly_the_missing_ones(folder: Path, osora: Osora) -> None:
    command = ("sample", "tiny/sample", "--prompts", "prompts.csv", *QUICK, "--save-dir", "killed")
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], cwd=folder, env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    before = media(folder / "killed")
    assert sorted(before) == [f"sample-{row:04d}.png" for row in range(8)]
    assert len(list((folder / "killed").glob("*.json"))) == 7

    resumed = osora(*command, "--resume", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert f"7 of {ROWS} samples are finished already" in resumed.stdout
    after = media(folder / "killed")
    assert sorted(after) == [f"sample-{row:04d}.png" for row in range(ROWS)]
    assert {name for name in after if after[name] != before.get(name)} == {
        f"sample-{row:04d}.png" for row in range(7, ROWS)
    }
    assert after["sample-0007.png"][0] == before["sample-0007.png"][0]  # made again from the same seed
    seeds = [json.loads(path.read_text())["seed"] for path in (folder / "killed").glob("sample-*.json")]
    assert sorted(seeds) == list(range(42, 42 + ROWS))


def test_two_processes_make_the_files_of_one_and_report_what_failed(
    folder: Path, osora: Osora, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [f"sampling.{setting}" for setting in ("num_steps=1", "num_frames=5", "resolution=48px")]
    (folder / "two" / "sample-0002.mp4").mkdir(parents=True)  # no file can be put here
    options = [*QUICK[:4], *(option for one in sets for option in ("--set", one))]
    command = ("sample", "tiny/t2i2v", "--prompts", "prompts.csv", "--end-index", 3, *options)
    done = osora(*command, "--save-dir", "two", "--nproc", 2, "--overwrite", cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 3 samples failed, the others are written:\n  sample 2: cannot write" in done.stderr
    assert done.stdout.count("contact sheet: two/contact-sheet.png") == 1
    assert {"images 2/2", "sampling 2/2"} <= {line.split("  ")[0] for line in done.stdout.splitlines()}

    monkeypatch.chdir(folder)
    alone = Pipeline.from_recipe("tiny/t2i2v", sets=[*sets, "sampling.save_dir=one"], unsets=QUICK[1:4:2])
    alone.run(Request(prompts_file=Path("prompts.csv"), end_index=2))
    made = {file.name: file.read_bytes() for file in (folder / "one").glob("sample-*") if file.suffix != ".json"}
    assert sorted(made) == [f"sample-000{row}{end}" for row in (0, 1) for end in ("-image.png", ".mp4")]
    assert made == {name: (folder / "two" / name).read_bytes() for name in made}
    assert len(set(made.values())) == 4
