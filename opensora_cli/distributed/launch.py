"""Starting one job as several processes of the same program, watching them, and saying what went wrong first."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from opensora_cli.distributed.nodes import Nodes

_LOGS = "OSORA_RANK_LOGS"
_LIFELINE = "OSORA_LIFELINE"
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 10.0  # between asking processes to end and making them
_SHOWN_LINES = 30


@dataclass(frozen=True)
class Failure:
    """The process that failed first: the others fail because it is gone."""

    rank: int
    code: int

    @property
    def exit_code(self) -> int:
        """The shell's code for it."""
        return 128 - self.code if self.code < 0 else self.code

    def describe(self, errors: str) -> str:
        """Say how it ended, and the end of what it wrote to its error stream."""
        how = (
            f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with exit code {self.code}"
        )
        lines = errors.strip().splitlines()[-_SHOWN_LINES:]
        said = "\n".join(lines) if lines else "It wrote no error (the system kills a process when memory runs out)."
        return f"process {self.rank} failed first: it {how}.\n{said}\n"


class Launcher:
    """`processes` copies of a command on this machine, as the ranks of one job over all of `nodes`.

    The first one writes to this program's own output; what the others write, and every error stream, goes to files, which end
    up in the run folder's `logs`.
    """

    def __init__(self, command: list[str], processes: int, nodes: Nodes) -> None:
        self._command = command
        self._count = processes
        self._nodes = nodes
        self._children: list[subprocess.Popen[bytes]] = []
        self._asked_to_stop = False

    def run(self) -> int:
        """Run to the end; return 0, the exit code of the process that failed first, or that of a job stopped by a signal."""
        logs = Path(tempfile.mkdtemp(prefix="osora-"))
        before = {number: signal.signal(number, self._forward) for number in (signal.SIGTERM, signal.SIGINT)}
        lifeline, held = os.pipe()
        try:
            for local in range(self._count):
                self._children.append(self._start(local, logs, lifeline))
            failure = self._watch()
            for child in self._children:
                child.wait()
            elsewhere = self._nodes.failed()
            self._nodes.finish()
            return self._report(failure, elsewhere, logs)
        finally:
            self._end()
            os.close(lifeline)
            os.close(held)
            for number, handler in before.items():
                signal.signal(number, handler)
            _keep_logs(logs)

    def _start(self, local: int, logs: Path, lifeline: int) -> subprocess.Popen[bytes]:
        rank = self._nodes.number * self._count + local
        with (logs / f"rank-{rank}.err").open("wb") as errors:
            output: IO[bytes] | None = errors if rank else None
            return subprocess.Popen(  # noqa: S603 - this program itself
                self._command,
                env=self._environment(local, rank, logs, lifeline),
                stdout=output,
                stderr=errors,
                start_new_session=True,  # Ctrl-C comes to the launcher alone, which passes it on
                pass_fds=(lifeline,),
            )

    def _environment(self, local: int, rank: int, logs: Path, lifeline: int) -> Mapping[str, str]:
        threads = str(max(1, (os.cpu_count() or 1) // self._count))
        return {
            "OMP_NUM_THREADS": threads,
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": str(self._count * self._nodes.count),
            "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(self._count),
            "MASTER_ADDR": self._nodes.address,
            "MASTER_PORT": str(self._nodes.port),
            _LOGS: str(logs),
            _LIFELINE: str(lifeline),
        }

    def _watch(self) -> Failure | None:
        """Wait until all processes have ended, or one has failed and the others were made to end."""
        while None in (codes := [child.poll() for child in self._children]):
            if any(codes) and not self._asked_to_stop:
                return self._stop_others(codes)
            if self._nodes.failed():
                self._end()
                return None
            time.sleep(_POLL_SECONDS)
        return self._stop_others(codes) if any(codes) and not self._asked_to_stop else None

    def _stop_others(self, codes: list[int | None]) -> Failure:
        # Of several found at once, one that was killed did not die of the others' end.
        code, local = min(((code, rank) for rank, code in enumerate(codes) if code), key=lambda found: found[0] > 0)
        self._nodes.announce_failure()
        self._end()
        return Failure(self._nodes.number * self._count + local, code)

    def _end(self) -> None:
        """Ask every process that still runs to end, and end it when it does not."""
        self._signal(signal.SIGTERM)
        end = time.monotonic() + _PATIENCE_SECONDS
        for child in self._children:
            try:
                child.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                child.wait()

    def _signal(self, number: int) -> None:
        for child in self._children:
            if child.poll() is None:
                os.killpg(child.pid, number)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True
        self._signal(number)

    def _report(self, failure: Failure | None, elsewhere: bool, logs: Path) -> int:
        if failure is not None:
            errors = (logs / f"rank-{failure.rank}.err").read_text(errors="replace")
            sys.stderr.write(failure.describe(errors))
            return failure.exit_code
        first = self._nodes.number * self._count
        sys.stderr.write((logs / f"rank-{first}.err").read_text(errors="replace"))
        if elsewhere:
            sys.stderr.write("a process on another machine failed; its launcher shows why.\n")
            return 1
        codes = [child.returncode for child in self._children if child.returncode]
        return (128 - codes[0] if codes[0] < 0 else codes[0]) if codes else 0


def launch(processes: int, nodes: Nodes) -> int:
    """Run this program, with its own arguments, as so many processes on this machine; return the exit code."""
    return Launcher([sys.executable, "-m", "opensora_cli.main", *sys.argv[1:]], processes, nodes).run()


def launched_by_osora() -> bool:
    """Whether `launch` started this process."""
    return _LOGS in os.environ


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port


def tell_run_folder(folder: Path) -> None:
    """Let the launcher, if there is one, know where the logs belong."""
    if logs := os.environ.get(_LOGS):
        Path(logs, "run-folder").write_text(str(folder.resolve()), encoding="utf-8")


def end_with_launcher() -> None:
    """End this process when its launcher is gone, killed for example."""
    if lifeline := os.environ.get(_LIFELINE):

        def wait() -> None:
            os.read(int(lifeline), 1)  # returns when the other end is closed, by whatever means
            os._exit(1)

        threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _keep_logs(logs: Path) -> None:
    told = logs / "run-folder"
    if told.exists():
        target = Path(told.read_text(encoding="utf-8"), "logs")
        for errors in logs.glob("rank-*.err"):
            if errors.stat().st_size:
                shutil.copyfile(errors, target / errors.name)
    shutil.rmtree(logs)
