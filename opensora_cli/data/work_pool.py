"""Worker processes that may die: a decoder that crashes on a file costs that file, not the job."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Answer = TypeVar("Answer")

AHEAD = 4
"""Tasks that a worker has at a time, so that it never waits for the next one."""


class WorkerPool(Generic[Answer]):
    """`size` processes that answer tasks with `work(task)`.

    `work` must be a function of a module, and turn what it expects to go wrong into an answer; an exception it lets through
    ends the worker like a crash does. `crashed(exit code)` gives the answer for a task that killed its worker.
    """

    def __init__(self, work: Callable[[Any], Answer], size: int, crashed: Callable[[int | None], Answer]) -> None:
        self._work = work
        self._crashed = crashed
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", work.__module__])
        self._workers = [self._start() for _ in range(size)]

    def map(self, tasks: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Answer]]:
        """Yield (number, answer) for each (number, task), in the order in which they get done."""
        waiting = iter(tasks)
        again: deque[tuple[int, Any]] = deque()
        while True:
            for worker in self._workers:
                while len(worker.given) < AHEAD and (task := _next(again, waiting)) is not None:
                    worker.give(task)
            busy = {worker.connection: worker for worker in self._workers if worker.given}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # wait() returns what it was given
                try:
                    answer: Answer = worker.connection.recv()
                    yield worker.given.popleft()[0], answer
                except (EOFError, ConnectionError):
                    number, _ = worker.given.popleft()
                    # Its other tasks go to others, first of all: the worker never looked at them.
                    again.extend(worker.given)
                    self._workers[self._workers.index(worker)] = self._start()
                    yield number, self._crashed(worker.end())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
            worker.end()

    def _start(self) -> "_Worker":
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


class _Worker:
    def __init__(self, process: Any, connection: "Connection[Any, Any]") -> None:
        self.process = process
        self.connection = connection
        self.given: deque[tuple[int, Any]] = deque()

    def give(self, task: tuple[int, Any]) -> None:
        self.given.append(task)
        # If the worker died, reading its answer says so: the task stays in `given`.
        with suppress(ConnectionError):
            self.connection.send(task[1])

    def end(self) -> int | None:
        """Wait for the process's end and return its exit code, negative for a signal."""
        self.connection.close()
        self.process.join()
        code: int | None = self.process.exitcode
        self.process.close()
        return code


def _next(again: deque[tuple[int, Any]], waiting: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
    return again.popleft() if again else next(waiting, None)


def _serve(connection: "Connection[Any, Any]", work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's; it ends its workers
    with suppress(EOFError, ConnectionError):  # the main process is gone, and so is the job
        while True:
            connection.send(work(connection.recv()))
