"""Jobs of many prompts: killed and resumed, and shared out over processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.data.video import read_clip
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
    rows = 5
    (folder / "two" / "sample-0003.png").mkdir(parents=True)  # of the second process's share: no file can be put here
    command = ("sample", "tiny/sample", "--prompts", "prompts.csv", *QUICK, "--end-index", rows)
    done = osora(*command, "--save-dir", "two", "--nproc", 2, "--overwrite", cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 5 samples failed, the others are written:\n  sample 3: cannot write" in done.stderr
    assert done.stdout.count("contact sheet: two/contact-sheet.png") == 1
    (folder / "two" / "sample-0003.png").rmdir()

    monkeypatch.chdir(folder)
    request = Request(prompts_file=Path("prompts.csv"), end_index=rows)
    for save_dir, resume in (("one", False), ("two", True)):
        quick = ("num_steps=1", "num_frames=1", f"save_dir={save_dir}")
        sets = [f"sampling.{setting}" for setting in quick]
        pipeline = Pipeline.from_recipe("tiny/sample", sets=sets, unsets=QUICK[1:4:2])
        before = media(folder / save_dir)
        pipeline.run(request, resume=resume)
        made = {name for name, facts in media(folder / save_dir).items() if facts != before.get(name)}
        assert len(made) == (1 if resume else rows)
    one, two = ({name: facts[0] for name, facts in media(folder / name).items()} for name in ("one", "two"))
    assert one == two
    assert len(set(one.values())) == rows


def test_a_team_of_two_makes_first_frames_and_the_clips_that_go_on_from_them(
    folder: Path, osora: Osora, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share out the guidance branches of each clip, and the clips of the batch for decoding."""
    settings = ("num_steps=2", "num_frames=5", "resolution=48px", "batch_size=2", "output_format=lossless")
    sets = [f"sampling.{setting}" for setting in settings]
    options = [option for one in (*sets, "parallel.cfg_size=2") for option in ("--set", one)]
    command = ("sample", "tiny/t2i2v", "--prompts", "prompts.csv", "--end-index", 3, *QUICK[:4], *options)
    done = osora(*command, "--save-dir", "team", "--nproc", 2, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images 4/4" in done.stdout
    assert "sampling 4/4" in done.stdout

    monkeypatch.chdir(folder)
    alone = Pipeline.from_recipe("tiny/t2i2v", sets=[*sets, "sampling.save_dir=alone"], unsets=QUICK[1:4:2])
    files = alone.run(Request(prompts_file=Path("prompts.csv"), end_index=3))
    for clip in files:
        image = clip.with_name(f"{clip.stem}-image.png")
        assert (folder / "team" / image.name).read_bytes() == image.read_bytes()
        ours, theirs = (read_clip(str(folder / name / clip.name), range(5)).float() for name in ("team", "alone"))
        assert (ours - theirs).abs().max() <= 1
        evaluations = [
            json.loads((folder / name / f"{clip.stem}.json").read_text())["evaluations"] for name in ("team", "alone")
        ]
        assert evaluations == [6, 6]
