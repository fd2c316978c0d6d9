"""The machines of a job: which of them this is, and where their processes meet."""

import socket
from typing import Any

from schemas.errors import UsageError

_PATIENCE_SECONDS = 900.0


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
        self.number = 0 if first else self._store.add("machines", 1)
        if self.number >= count:
            raise UsageError(f"--nnodes {count}: {self.number} other machines are there already.")
        if first:
            self._store.set("port", str(port))
        self.port = int(self._store.get("port"))

    def failed(self) -> bool:
        """Whether a process failed on another machine, or the first machine is gone."""
        try:
            return bool(self._store.check(["failed"]))
        except RuntimeError:
            return True

    def announce_failure(self) -> None:
        """Let the other machines know that a process failed here."""
        self._store.set("failed", str(self.number))


def _meet(store: Any, host: str, port: int) -> tuple[Any, bool]:
    """Keep the meeting's notes if the address is this machine's and nobody does yet, or else read them."""
    from datetime import timedelta

    patience = timedelta(seconds=_PATIENCE_SECONDS)
    try:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError:
        return store(host, port, is_master=False, timeout=patience), False
    return store(host, port, is_master=True, wait_for_workers=False, timeout=patience), True
