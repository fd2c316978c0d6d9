"""A language model for tests: a server on this machine that says what it is told to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Server(HTTPServer):
    """Answers with what is next in `answers`: (status, body); remembers what it was asked. None closes without a word."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes] | None] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
        self.server.headers.append(dict(self.headers))
        answer = self.server.answers.pop(0)
        if answer is None:
            return
        self.send_response(answer[0])
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, *line: object) -> None:
        """Say nothing."""


def said(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@contextmanager
def running() -> Iterator[Server]:
    """Serve until the end of the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
