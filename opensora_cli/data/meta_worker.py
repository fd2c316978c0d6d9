"""What a worker of `osora meta` does with one file. Imports little, so that workers start fast."""

import signal
from typing import Any

from opensora_cli.data.media import UnreadableClip
from opensora_cli.data.meta_columns import meta_row
from opensora_cli.data.probe import probe

Answer = dict[str, Any]
"""The cells of a row, or `error` with the reason."""


def look_at(path: str) -> Answer:
    """Return a file's cells, or why it cannot be read."""
    try:
        return dict(meta_row(probe(path)))
    except UnreadableClip as error:
        return {"error": error.reason}
    except Exception as error:  # whatever a library raises on a foreign file concerns that file alone
        return {"error": f"{type(error).__name__}: {error}"}


def crashed(exit_code: int | None) -> Answer:
    """Return the answer for a file that ended its worker."""
    if exit_code is not None and exit_code < 0:
        return {"error": f"the decoder crashed on it ({signal.Signals(-exit_code).name})"}
    return {"error": f"the decoder ended its process on it (exit code {exit_code})"}
