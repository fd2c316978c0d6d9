"""Jobs that fail, hang, are killed or are asked to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opensora_cli.distributed.launch import Failure, free_port
from opensora_cli.distributed.watchdog import Watchdog
from tests.cli.conftest import OSORA, environment
from tests.distributed import jobs

SECONDS_TO_STOP = 30
PATIENT = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "


def wait_for(path: Path, lines: int = 1) -> None:
    """Wait until another process has written so many lines."""
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        time.sleep(0.005)  # polling another process, not waiting for a result


def test_the_first_failure_is_shown_and_the_others_are_stopped() -> None:
    code = PATIENT + (
        "import os\nif os.environ['RANK'] == '0': print('first of', os.environ['WORLD_SIZE'], flush=True)\n"
        "if os.environ['RANK'] == '1': raise SystemExit('no such clip')\n"
        "time.sleep(600)"
    )
    job = jobs.start(3, "-c", code)
    output, errors = job.communicate()
    assert job.returncode == 1
    assert errors == "process 1 failed first: it ended with exit code 1.\nno such clip\n"
    assert output in ("first of 3\n", "")  # it may have been stopped before


def test_a_signal_reaches_every_process_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    code = (
        PATIENT
        + f"import os, pathlib; pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text('there'); time.sleep(600)"
    )
    job = jobs.start(2, "-c", code)
    for rank in ("0", "1"):
        wait_for(tmp_path / rank)
    job.send_signal(signal.SIGTERM)
    output, errors = job.communicate()
    assert (job.returncode, output, errors) == (143, "", "")


def two_machines(code: str) -> list[tuple[int, str, str]]:
    """Run one job of two launchers with a process each; return their exit codes and outputs."""
    meeting = f"127.0.0.1:{free_port()}"
    launchers = [jobs.start(1, "-c", code, machines=2, meeting=meeting) for _ in range(2)]
    outputs = [job.communicate() for job in launchers]
    return [(job.returncode, *output) for job, output in zip(launchers, outputs, strict=True)]


def test_machines_meet_and_number_their_processes(tmp_path: Path) -> None:
    code = (
        f"import os, pathlib\nhere = pathlib.Path({str(tmp_path)!r})\n"
        "names = 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT'\n"
        "(here / os.environ['RANK']).write_text(' '.join(os.environ[name] for name in names))"
    )
    assert [code for code, *_ in two_machines(code)] == [0, 0]
    places = [(tmp_path / rank).read_text().split() for rank in ("0", "1")]
    assert [place[:3] for place in places] == [["0", "2", "0"], ["1", "2", "0"]]
    assert places[0][3] == places[1][3]


def test_a_failure_on_one_machine_stops_the_other() -> None:
    code = PATIENT + "import os\nif os.environ['RANK'] == '1': raise SystemExit('no such clip')\ntime.sleep(600)"
    results = sorted(errors for _, _, errors in two_machines(code))
    assert results[0] == "a process on another machine failed; its launcher shows why.\n"
    assert results[1] == "process 1 failed first: it ended with exit code 1.\nno such clip\n"


def test_processes_end_with_a_launcher_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time\nfrom opensora_cli.distributed.launch import end_with_launcher\nend_with_launcher()\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    job = jobs.start(2, "-c", code)
    for rank in ("0", "1"):
        wait_for(tmp_path / rank)
    job.kill()
    job.communicate()  # returns when nobody holds its output any more, the first process among them
    second = int((tmp_path / "1").read_text())
    while Path(f"/proc/{second}").exists() and "Z" not in Path(f"/proc/{second}/stat").read_text().split()[2]:
        time.sleep(0.005)  # a process that stays would never let this end


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [(-9, 137, "was killed by SIGKILL.\nIt wrote no error"), (2, 2, "ended with exit code 2.\nIt wrote no error")],
)
def test_how_a_process_failed(code: int, exit_code: int, words: str) -> None:
    failure = Failure(5, code)
    assert failure.exit_code == exit_code
    assert failure.describe("").startswith(f"process 5 failed first: it {words}")


def test_the_stacks_of_a_process_that_hangs_are_in_its_log(tmp_path: Path) -> None:
    code = (
        "import sys, threading\nfrom pathlib import Path\nfrom opensora_cli.distributed.watchdog import Watchdog\n"
        "def wait_for_the_others():\n    threading.Event().wait()\n"
        "with Watchdog(0.2, Path(sys.argv[1])) as dog:\n    dog.progress()\n    wait_for_the_others()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], env=environment(), check=False)
    assert done.returncode == 1
    log = (tmp_path / "log").read_text()
    assert "Timeout" in log
    assert "wait_for_the_others" in log


def test_a_watchdog_that_was_left_does_not_bite(tmp_path: Path) -> None:
    with Watchdog(0.05, tmp_path / "log") as dog:
        dog.progress()
    time.sleep(0.2)  # the one sleep that is the test: nothing may happen in it
    assert (tmp_path / "log").read_text() == ""


def test_a_killed_process_stops_the_job_and_the_resumed_run_repeats_the_whole_one(
    trained: Path, tmp_path: Path
) -> None:
    broken, whole = tmp_path / "fsdp-2", trained / "fsdp-2"
    job = jobs.start(2, "-m", "tests.distributed.train_tiny", tmp_path, 2, "fsdp-2")
    wait_for(broken / "metrics.jsonl", lines=5)
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    killed = time.monotonic()
    _, errors = job.communicate()
    assert time.monotonic() - killed < SECONDS_TO_STOP  # the limit that is promised; it takes two
    assert job.returncode == 137
    assert errors.startswith("process 1 failed first: it was killed by SIGKILL.")
    assert len(jobs.records(broken)) < 10
    jobs.train(2, tmp_path, "fsdp-2", every=2)
    assert jobs.same_state(broken, whole)
    assert [r["loss"] for r in jobs.records(broken)] == [r["loss"] for r in jobs.records(whole)]


def test_a_mesh_that_the_processes_do_not_fill_is_refused_before_any_starts(tmp_path: Path) -> None:
    command = [
        str(OSORA),
        "train",
        "tiny/train",
        "--nproc",
        "3",
        "--set",
        "parallel.plugin=hybrid",
        "--set",
        "parallel.tp_size=2",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not divide the 3 processes" in done.stderr


def test_a_hang_leaves_the_stacks_of_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, threading, torch, torch.distributed as dist\nfrom pathlib import Path\n"
        "from opensora_cli.distributed.process import start_process\n"
        "from opensora_cli.distributed.watchdog import Watchdog\nfrom opensora_cli.training.interrupt import Interrupt\n"
        "from schemas.parallel import ParallelConfig\n"
        "def asleep():\n    threading.Event().wait()\n"
        "def waiting_for_all():\n    dist.all_reduce(torch.ones(1))\n"
        "process = start_process('cpu', ParallelConfig(hang_seconds=3))\n"
        "dist.barrier()\n"
        "with Interrupt(), Watchdog(1.5, Path(sys.argv[1], f'rank-{process.rank}.log')):\n"
        "    waiting_for_all() if process.is_main else asleep()\n"
    )
    job = jobs.start(2, "-c", code, tmp_path)
    _, errors = job.communicate()
    assert job.returncode == 1
    assert errors.startswith("process ")
    logs = [(tmp_path / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert "waiting_for_all" in logs[0]
    assert "asleep" in logs[1]
