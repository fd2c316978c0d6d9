"""Stopping a run politely: finish the update, save, leave."""

import os
import signal
from types import FrameType
from typing import Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
    """While active, the first SIGTERM or SIGINT only sets `signal`; the second stops the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it came from signal.signal itself

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """The shell's code for a process that a signal ended: 143 for SIGTERM, 130 for SIGINT, 0 without one."""
        return 128 + self.signal if self.signal is not None else 0
