"""What a worker of `osora meta` does with one file. Imports little, so that workers start fast."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from opensora_cli.data.clip_details import clip_details
from opensora_cli.data.media import UnreadableClip
from opensora_cli.data.meta_columns import META_COLUMNS, Cell, detail_cells, meta_cells
from opensora_cli.data.probe import probe
from opensora_cli.data.remote import local_copy, protocol_of

Answer = list[Cell] | str
"""The cells of a row, or the reason why there are none."""


@dataclass(frozen=True)
class Look:
    """What is asked of every file: the columns, the six of `META_COLUMNS` first; and where copies of remote files lie."""

    columns: tuple[str, ...] = META_COLUMNS
    scratch: str = ""

    def __call__(self, path: str) -> Answer:
        """Return a file's cells, or why it cannot be read."""
        try:
            if protocol_of(path) is None:
                return self._cells(path)
            with local_copy(path, Path(self.scratch)) as copy:
                return self._cells(copy)
        except UnreadableClip as error:
            return error.reason
        except Exception as error:  # whatever a library raises on a foreign file concerns that file alone
            return f"{type(error).__name__}: {error}"

    def _cells(self, path: str) -> Answer:
        if not path:
            return "the cell path is empty"
        if Path(path).is_dir():
            return _why_no_clip(path)
        cells = meta_cells(probe(path))
        details = self.columns[len(META_COLUMNS) :]
        return cells + detail_cells(clip_details(path), details) if details else cells


def _why_no_clip(folder: str) -> str:
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f"a folder that cannot be listed: {error.strerror}"
    return "is a folder"


@dataclass(frozen=True)
class Lost:
    """The answer for a file that ended its worker, or kept it longer than `limit` seconds."""

    limit: float

    def __call__(self, exit_code: int | None) -> Answer:
        """Return the reason; an exit code of None is one that took too long."""
        if exit_code is None:
            return f"not read within {self.limit:g} seconds (--timeout)"
        if exit_code < 0:
            return f"the decoder crashed on it ({signal.Signals(-exit_code).name})"
        return f"the decoder ended its process on it (exit code {exit_code})"
