"""The decoding processes: how they start and end, and how what goes wrong in them reaches the main process."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children, forkserver, get_context, parent_process, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from opensora_cli.data.dataset import Batch, LostBatch
from schemas.data import DatasetConfig


def worker_context() -> Any:
    """Return the way workers start: from a clean server process, which knows no threads, no GPU and no process group.

    The server inherits a blocked SIGTERM, so that one sent to the whole process group leaves the workers to the main
    process, which finishes its step first; they end with it.
    """
    context: Any = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "opensora_cli.data.workers"])
    resource_tracker.ensure_running()  # before the mask: starting the tracker would lift it
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    return context


def start_worker(worker: int) -> None:
    """Leave the terminal's process group, so that Ctrl-C reaches the main process alone; one thread for the arithmetic."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_main, daemon=True).start()


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's function that returns freed memory to the system; other C libraries do so on their own, or not at all."""


def worker_options(config: DatasetConfig) -> dict[str, Any]:
    """Return the DataLoader options that start the recipe's decoding processes."""
    if not config.num_workers:
        return {"num_workers": 0}
    return {
        "num_workers": config.num_workers,
        "multiprocessing_context": worker_context(),
        "prefetch_factor": config.prefetch_factor,
        "worker_init_fn": start_worker,
        "persistent_workers": True,
    }


class Watch:
    """A time limit for waits: the processes started in one are ended when a later one takes too long.

    A loader notices within seconds that a worker is gone, whereas it waits for ever for one that hangs.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._processes: set[BaseProcess] = set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Limit the time that the body may take."""
        before = set(active_children())
        timer = threading.Timer(self.seconds, self._end, [before])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._processes |= set(active_children()) - before

    def _end(self, before: set[BaseProcess]) -> None:
        self.expired = True
        for process in self._processes | (set(active_children()) - before):
            process.kill()


class Shareable(Protocol):
    """What a worker sends: something that holds tensors."""

    def tensors(self) -> list[Tensor]:
        """Return them."""
        ...


def into_shared_memory(made: Any) -> Any:
    """Place what a worker made, a `Shareable`, where the main process can read it; `LostBatch` where memory is refused.

    The queue would do this too, but in a thread of its own, where a refusal is printed and the main process waits for ever.
    """
    worker = get_worker_info()
    if worker is None or isinstance(made, LostBatch):
        return made
    tensors = cast("Shareable", made).tensors()
    if _trim is not None:
        # Pictures of many sizes leave holes in the heap: without this a worker grew by a quarter in 5,000 clips.
        _trim(0)
    try:
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        size = sum(tensor.nbytes for tensor in tensors)
        rows = f", rows {made.rows}" if isinstance(made, Batch) else ""
        return LostBatch(
            f"data worker {worker.id} was refused {size / 2**20:.1f} MiB of shared memory for {len(tensors)} tensors{rows}: "
            f"{error}. Give /dev/shm more room (docker run --shm-size), or lower dataset.num_workers, "
            "dataset.prefetch_factor or the batch size; dataset.num_workers = 0 needs none."
        )
    return made


def _end_with_main() -> None:
    """End this worker when the main process is gone, killed for example: its own parent, the server, would live on."""
    main = parent_process()
    assert main is not None
    main.join()
    os._exit(1)
