"""Progress of long jobs: a live bar on a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_SECONDS = 10.0


class JobProgress:
    """One job of `total` steps. Use as a context manager; `advance` after every step."""

    def __init__(self, title: str, total: int | None, *, done: int = 0, console: Console | None = None) -> None:
        self.console = console or Console()
        self._title = title
        self._total = total
        self._done = done
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", style="cyan"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, facts: str = "", steps: int = 1) -> None:
        """Count `steps` more and show `facts`; without a terminal, print a line at most every 10 seconds and at the end."""
        self._done += steps
        self._bar.update(self._task, completed=self._done, facts=facts)
        now = time.monotonic()
        ended = steps > 0 and self._done == self._total
        if not self.console.is_terminal and (now - self._last_line >= _LINE_SECONDS or ended):
            self._last_line = now
            total = f"/{self._total}" if self._total is not None else ""
            self.note(f"{self._title} {self._done}{total}" + (f"  {facts}" if facts else ""))

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class TrainingProgress(JobProgress):
    """The progress of a training run; see `opensora_cli.training.metrics.Display`."""

    def update(self, record: Mapping[str, float]) -> None:
        """Show one update's loss, gradient norm, rate and speed."""
        self.advance(
            f"loss {record['loss']:.4f}  grad {record['grad_norm']:.3g}  lr {record['lr']:.2e}  "
            f"{record['step_seconds']:.2f} s/step  {record['samples_per_second']:.1f} clips/s"
            + (f"  MFU {record['mfu']:.0%}" if "mfu" in record else "")
        )


@contextmanager
def counted(title: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Yield `report(done, total)` for a job that finds out its total itself; the display starts with the first call."""
    bar: JobProgress | None = None
    before = 0

    def report(done: int, total: int) -> None:
        nonlocal bar, before
        if bar is None:
            bar = JobProgress(title, total, done=done, console=console).__enter__()
        elif done > before:
            bar.advance(steps=done - before)
        before = done

    try:
        yield report
    finally:
        if bar is not None:
            bar.__exit__(None, None, None)
