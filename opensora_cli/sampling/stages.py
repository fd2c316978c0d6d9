"""What a sample costs: seconds by stage, and the most memory that was in use."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere


class Stages:
    """Adds up the seconds of named stages; work that a GPU still has to do belongs to the stage that started it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside towards `name`."""
        self._wait()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[name] += time.perf_counter() - started

    def rounded(self) -> dict[str, float]:
        """Return the seconds of every stage so far, to the millisecond."""
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory in use so far: of the GPU's allocations, on a CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
