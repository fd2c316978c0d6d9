"""The machines of a job: which of them this is, and where their processes meet."""

import socket
import time
from typing import Any

from schemas.errors import UsageError

_PATIENCE_SECONDS = 900.0  # for machines to come
_LAST_SECONDS = 60.0  # for machines to end
_LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.05


class Nodes:
    """This machine, as the only one of a job."""

    def __init__(self, port: int) -> None:
        self.number, self.count = 0, 1
        self.address, self.port = "127.0.0.1", port

    def failed(self) -> bool:
        """Whether a process failed on another machine."""
        return False

    def announce_failure(self) -> None:
        """Let the other machines know that a process failed here."""

    def finish(self) -> None:
        """Say that this machine's processes have ended, and wait for those that still need this one."""


class SeveralNodes(Nodes):
    """`count` machines that meet at `rendezvous` (HOST:PORT), an address of one of them, which becomes the first."""

    def __init__(self, count: int, rendezvous: str, port: int) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is documented there

        host, _, meeting = rendezvous.rpartition(":")
        if not host or not meeting.isdigit():
            raise UsageError(
                f"--rdzv {rendezvous}: give HOST:PORT, an address of the first machine and a free port there."
            )
        self.count, self.address = count, host
        self._store, first = _meet(TCPStore, host, int(meeting))
        self._failed, self._looked = False, 0.0
        self.number = 0 if first else self._store.add("machines", 1)
        if self.number >= count:
            raise UsageError(f"--nnodes {count}: {self.number} other machines are there already.")
        if first:
            self._store.set("port", str(port))
        self.port = int(self._store.get("port"))

    def failed(self) -> bool:
        """Whether a process failed on another machine, or the first machine is gone; it looks once a second."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._failed = bool(self._store.check(["failed"]))
            except RuntimeError:
                self._failed = True
        return self._failed

    def announce_failure(self) -> None:
        """Let the other machines know that a process failed here."""
        self._store.set("failed", str(self.number))

    def finish(self) -> None:
        """Say that this machine's processes have ended; the first, which keeps the notes, waits for the others to say so."""
        try:
            ended = self._store.add("ended", 1)
            give_up = time.monotonic() + _LAST_SECONDS
            while self.number == 0 and ended < self.count and time.monotonic() < give_up:
                time.sleep(_POLL_SECONDS)
                ended = self._store.add("ended", 0)
        except RuntimeError:
            return  # the first machine is gone, and with it whoever wanted to know


def _meet(store: Any, host: str, port: int) -> tuple[Any, bool]:
    """Keep the meeting's notes if the address is this machine's and nobody does yet, or else read them."""
    from datetime import timedelta

    patience = timedelta(seconds=_PATIENCE_SECONDS)
    try:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))  # only an address of this machine can be bound
        return store(host, port, is_master=True, wait_for_workers=False, timeout=patience), True
    except (OSError, RuntimeError):
        return store(host, port, is_master=False, timeout=patience), False
