"""Seconds that a device spends on a part of the work, without making anybody wait for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceClock:
    """Adds up time on one device: by events on a GPU's stream, by the wall clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done inside."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        stream = torch.cuda.current_stream(self._device)
        begin = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        yield
        end = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._events.append((begin, end))

    def take(self) -> float:
        """Return the seconds since this was last asked. On a GPU the work has to be done: ask behind a synchronisation."""
        seconds = self._seconds + sum(float(begin.elapsed_time(end)) for begin, end in self._events) / 1000
        self._seconds, self._events = 0.0, []
        return seconds
