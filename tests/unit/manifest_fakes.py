"""Tables of clips without files."""

from pathlib import Path

import numpy as np

from opensora_cli.data.manifest import Manifest
from opensora_cli.data.row_texts import RowText


class Names:
    """Row n is clip n; `asked` has the rows that were looked up."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, row: int) -> RowText:
        self.asked.append(row)
        return RowText(f"{row}.mp4", f"clip {row}")


def manifest(rows: int, seed: int = 0) -> Manifest:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([256, 288, 512, 640], (2, rows))
    return Manifest(
        source=Path("meta.csv"),
        folder=Path(),
        texts=Names(),
        heights=sizes[0],
        widths=sizes[1],
        frames=rng.choice([1, 17, 20, 40], rows),
        fps=np.full(rows, 24.0),
        motion=None,
        whole_fps=False,
        fingerprint="",
    )
