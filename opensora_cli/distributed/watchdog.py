"""Ending a job that hangs, with the stacks of its processes in their logs."""

import faulthandler
from pathlib import Path
from types import TracebackType
from typing import Self


class Watchdog:
    """While active: when `progress` was not called for `seconds`, write all stacks into `log` and end the process.

    The clock runs outside of Python, so neither a collective that waits for ever nor a busy interpreter stops it. Processes of
    a job wait for one another, so theirs end about the same time, and each says where it was.
    """

    def __init__(self, seconds: float, log: Path) -> None:
        self._seconds = seconds
        self._path = log

    def __enter__(self) -> Self:
        self._log = self._path.open("a", encoding="utf-8")
        self.progress()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._log.close()

    def progress(self) -> None:
        """Start the clock anew."""
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._log)
