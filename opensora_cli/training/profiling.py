"""Traces of chosen updates: what ran when, and on a GPU what its memory was used for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from opensora_cli.files import whole_file, write_text

_ROWS = 30
_EVENTS = 200_000  # of the allocator, in one update


class Profiler:
    """Traces the updates that a recipe names, into a folder of the run."""

    def __init__(self, steps: Sequence[int], folder: Path, device: torch.device) -> None:
        self.steps = frozenset(steps)
        self.folder = folder
        self.device = device

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Trace what is done inside if the update `step`, counted from 1, is one of the recipe's."""
        if step not in self.steps:
            yield
            return
        self.folder.mkdir(exist_ok=True)
        cuda = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
        name = f"step-{step:08d}"
        with (
            self._memory(name) if cuda else _nothing(),
            profile(activities=activities, record_shapes=True, profile_memory=True) as traced,
        ):
            yield
        # The suffix is what TensorBoard's profiler plug-in looks for; Perfetto and chrome://tracing open it too.
        with whole_file(self.folder / f"{name}.pt.trace.json") as path:
            traced.export_chrome_trace(str(path))
        order = "self_device_time_total" if cuda else "self_cpu_time_total"
        write_text(self.folder / f"{name}.txt", traced.key_averages().table(sort_by=order, row_limit=_ROWS) + "\n")

    @contextmanager
    def _memory(self, name: str) -> Iterator[None]:
        """Write every allocation and where it came from, for https://pytorch.org/memory_viz."""
        torch.cuda.memory._record_memory_history(max_entries=_EVENTS)
        try:
            yield
            with whole_file(self.folder / f"{name}.memory.pickle") as path:
                torch.cuda.memory._dump_snapshot(str(path))  # type: ignore[no-untyped-call]
        finally:
            torch.cuda.memory._record_memory_history(enabled=None)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
