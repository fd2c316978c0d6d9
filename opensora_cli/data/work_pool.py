"""Worker processes that may die or hang: a decoder that crashes on a file, or never returns, costs that file, not the job."""

import math
import signal
import time
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
WINDOW = 16384
"""Tasks that others may be ahead of the oldest one without an answer: bounds what is kept while one file takes long."""
LAST_BREATH = 1.0
"""Seconds that are waited, at the end, for a killed worker that hangs in the kernel."""


class WorkerPool(Generic[Answer]):
    """`size` processes that answer tasks with `work(task)`.

    `work` must be picklable, and turn what it expects to go wrong into an answer; an exception it lets through ends the
    worker like a crash does. `lost(exit code)` gives the answer for a task that ended its worker, `lost(None)` for one that
    took more than `limit` seconds: its worker is killed and replaced.
    """

    def __init__(
        self,
        work: Callable[[Any], Answer],
        size: int,
        lost: Callable[[int | None], Answer],
        *,
        limit: float = math.inf,
    ) -> None:
        self._work = work
        self._lost = lost
        self._limit = limit
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", work.__module__])
        self._killed: list[Any] = []
        self._workers = [self._start() for _ in range(size)]

    def map(self, tasks: Iterable[Any]) -> Iterator[Answer]:
        """Yield the answer to each task, in the order of the tasks, which are taken as they are needed."""
        waiting = enumerate(tasks)
        again: deque[tuple[int, Any]] = deque()
        done: dict[int, Answer] = {}
        given = answered = 0
        while True:
            for worker in self._workers:
                while len(worker.given) < AHEAD:
                    task = again.popleft() if again else None
                    if task is None and given < answered + WINDOW:
                        task = next(waiting, None)
                        given += task is not None
                    if task is None:
                        break
                    worker.give(task)
            if not any(worker.given for worker in self._workers):
                return
            done.update(self._answers(again))
            while answered in done:
                yield done.pop(answered)
                answered += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
            worker.end()
        for process in self._killed:
            process.join(LAST_BREATH)

    def _answers(self, again: deque[tuple[int, Any]]) -> Iterator[tuple[int, Answer]]:
        """Wait for the next answers; what lost workers had besides goes to others, first of all: it was never looked at."""
        busy = {worker.connection: worker for worker in self._workers if worker.given}
        seconds = max(0.0, min(worker.since for worker in busy.values()) + self._limit - time.monotonic())
        ready = wait(list(busy), None if math.isinf(seconds) else seconds)
        for connection in ready:
            worker = busy[connection]  # type: ignore[index]  # wait() returns what it was given
            try:
                answer: Answer = worker.connection.recv()
                yield worker.take(), answer
            except (EOFError, ConnectionError):
                yield self._replace(worker, again), self._lost(worker.end())
        for worker in busy.values():
            if worker.connection in ready or time.monotonic() < worker.since + self._limit or worker.connection.poll():
                continue
            worker.process.kill()
            self._killed = [process for process in self._killed if process.is_alive()]
            self._killed.append(worker.process)
            worker.connection.close()
            yield self._replace(worker, again), self._lost(None)

    def _replace(self, worker: "_Worker", again: deque[tuple[int, Any]]) -> int:
        """Start another worker in a lost one's place, and return the number of the task that it was at."""
        number = worker.take()
        again.extend(worker.given)
        self._workers[self._workers.index(worker)] = self._start()
        return number

    def _start(self) -> "_Worker":
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        ours.recv()  # it is up: its imports do not count as time spent on its first task
        return worker


class _Worker:
    def __init__(self, process: Any, connection: "Connection[Any, Any]") -> None:
        self.process = process
        self.connection = connection
        self.given: deque[tuple[int, Any]] = deque()
        self.since = 0.0
        """When it began with the first of `given`."""

    def give(self, task: tuple[int, Any]) -> None:
        if not self.given:
            self.since = time.monotonic()
        self.given.append(task)
        # If the worker died, reading its answer says so: the task stays in `given`.
        with suppress(ConnectionError):
            self.connection.send(task[1])

    def take(self) -> int:
        """Return the number of the task that it was at; it goes on with the next one."""
        self.since = time.monotonic()
        return self.given.popleft()[0]

    def end(self) -> int | None:
        """Wait for the process's end and return its exit code, negative for a signal."""
        self.connection.close()
        self.process.join()
        code: int | None = self.process.exitcode
        self.process.close()
        return code


def _serve(connection: "Connection[Any, Any]", work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's; it ends its workers
    with suppress(EOFError, ConnectionError):  # the main process is gone, and so is the job
        connection.send(None)
        while True:
            connection.send(work(connection.recv()))
