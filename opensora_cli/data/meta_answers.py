"""What an unfinished run of `osora meta` knows: a file of answers, one line each, in the order of the table."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from opensora_cli.data.meta_worker import Answer
from schemas.errors import OsoraError

_LONGEST_HEADER = 1 << 16


class AnswerLog:
    """Answers on disk: a line that names the question, then a line for each row; a torn last line does not count.

    Every answer outlives the process at once; none of them stays in memory.
    """

    def __init__(self, path: Path, *, columns: tuple[str, ...], rows: int, sha256: str) -> None:
        self.path = path
        self._header = json.dumps({"format": 2, "columns": columns, "files": rows, "sha256": sha256})
        self._file: BinaryIO | None = None

    def begin(self, resume: bool) -> int:
        """Open the file for appending; return how many answers a resumed run has. Raises OsoraError for another run's."""
        kept = self._kept() if resume else 0
        with self._writing():
            if not kept:
                with self.path.open("wb") as file:
                    file.write(f"{self._header}\n".encode())
            self._file = self.path.open("ab")
        return max(0, kept - 1)

    def add(self, answer: Answer) -> None:
        """Append the next row's answer."""
        assert self._file is not None, "begin() comes first"
        with self._writing():
            self._file.write(json.dumps(answer).encode() + b"\n")
            self._file.flush()

    def answers(self) -> Iterator[Answer]:
        """Yield every answer there is. Raises OsoraError for a damaged line."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for row, line in enumerate(file):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise OsoraError(
                        f"{self.path}: the answer to row {row} is damaged. Run again without --resume."
                    ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OsoraError(
                f"cannot write {self.path}: {error.strerror or error}. What is in it is kept: make room and run again with "
                "--resume."
            ) from error

    def _kept(self) -> int:
        """Return the whole lines of an earlier run, and cut off what follows them."""
        if not self.path.is_file():
            return 0
        with self.path.open("rb+") as file:
            first = file.readline(_LONGEST_HEADER)
            if not first.endswith(b"\n"):
                return 0
            if first.decode("utf-8", "replace").rstrip("\n") != self._header:
                raise OsoraError(
                    f"{self.path}: the unfinished run was on another list of files, or asked for other columns, than this "
                    "one. Give the same INPUT and --columns, or leave --resume away to begin anew."
                )
            lines, end = 1, file.tell()
            while block := file.read(1 << 20):
                lines += block.count(b"\n")
                cut = block.rfind(b"\n")
                end = file.tell() - len(block) + cut + 1 if cut >= 0 else end
            os.truncate(self.path, end)
        return lines
