"""Columns of a table as they come in, part by part: numbers become typed arrays, text leaves only a hash behind."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from opensora_cli.data.draws import Floats, Sizes
from opensora_cli.data.table_sources import Cells
from schemas.errors import OsoraError

LARGEST_SIZE = 2**31 - 1


class NumberColumn:
    """A column of numbers; `whole` as long as every cell is written as a whole number."""

    def __init__(self, source: Path, name: str) -> None:
        self.source = source
        self.name = name
        self.whole = True
        self._parts: list[NDArray[Any]] = []
        self._rows = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._odd: tuple[int, str] | None = None
        self._odd_count = 0

    def add(self, cells: Cells) -> None:
        """Take in some rows."""
        numbers, odd = self._numbers(cells)
        self._note(odd, lambda place: f"{cells[place]!r}, not a number")
        self._digest.update(np.where(np.isnan(numbers), np.nan, numbers).tobytes())
        self._parts.append(self._checked(numbers))
        self._rows += len(numbers)

    def finish(self) -> NDArray[Any]:
        """Return the whole column. Raises OsoraError naming the first cell that is wrong, and how many there are."""
        if self._odd is not None:
            row, what = self._odd
            raise OsoraError(
                f"{self.source}: {self.name} of row {row} is {what} ({self._odd_count} such rows).{self.help}"
            )
        parts, self._parts = self._parts, []
        return np.concatenate(parts) if parts else np.empty(0)

    @property
    def help(self) -> str:
        """What to do about a wrong cell."""
        return ""

    def digest(self) -> bytes:
        """Return a hash of the numbers."""
        return self._digest.digest() + bytes([self.whole])

    def _checked(self, numbers: Floats) -> NDArray[Any]:
        return numbers

    def _note(self, wrong: NDArray[np.bool_], describe: Any) -> None:
        places = np.flatnonzero(wrong)
        if len(places) and self._odd is None:
            self._odd = self._rows + int(places[0]), describe(places[0])
        self._odd_count += len(places)

    def _numbers(self, cells: Cells) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the cells as float64, empty ones as NaN, and where there was something else than a number."""
        if isinstance(cells, pa.Array):
            kind = cells.type
            self.whole &= pa.types.is_integer(kind) and not cells.null_count
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                numbers = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
                return numbers, np.zeros(len(cells), dtype=bool)
            cells = ["" if cell is None else str(cell) for cell in cells.to_pylist()]
        else:
            self.whole = self.whole and all(map(str.isdecimal, cells))
        texts = np.array(cells, dtype=object)
        parsed = np.asarray(pd.to_numeric(texts, errors="coerce"), dtype=np.float64)
        return parsed, np.isnan(parsed) & (texts != "")


class SizeColumn(NumberColumn):
    """A column of whole numbers from 1 on, kept in four bytes each."""

    @property
    def help(self) -> str:
        """What to do about a wrong cell."""
        name = self.source.name
        return f" `osora meta {name} with_meta{self.source.suffix}` fills it in and leaves out what cannot be read."

    def _checked(self, numbers: Floats) -> Sizes:
        wrong = ~((numbers >= 1) & (numbers <= LARGEST_SIZE) & (np.floor(numbers) == numbers))
        self._note(wrong, lambda place: "empty" if math.isnan(numbers[place]) else f"{numbers[place]:g}, not a size")
        return np.where(wrong, 0, numbers).astype(np.int32)


class TextDigest:
    """A hash of a column of text, the same however it is cut into parts."""

    def __init__(self, source: Path, name: str, *, may_be_empty: bool) -> None:
        self.source = source
        self.name = name
        self._may_be_empty = may_be_empty
        self._rows = 0
        self._lengths = hashlib.blake2b(digest_size=16)
        self._texts = hashlib.blake2b(digest_size=16)

    def add(self, cells: Cells) -> None:
        """Take in some rows. Raises OsoraError for an empty cell where there has to be one."""
        column = cells.cast(pa.large_string()) if isinstance(cells, pa.Array) else pa.array(cells, pa.large_string())
        column = column.fill_null("")
        lengths = pc.binary_length(column).to_numpy(zero_copy_only=False)
        if not self._may_be_empty and not lengths.all():
            row = self._rows + int(np.flatnonzero(lengths == 0)[0])
            raise OsoraError(f"{self.source}: {self.name} of row {row} is empty. Remove the row, or fill it in.")
        self._lengths.update(lengths.tobytes())
        _, offsets, data = column.buffers()
        if len(column) and data is not None:
            ends = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
            self._texts.update(memoryview(data)[ends[0] : ends[-1]])
        self._rows += len(column)

    def digest(self) -> bytes:
        """Return a hash of the texts."""
        return self._lengths.digest() + self._texts.digest()


def fingerprint(columns: Mapping[str, NumberColumn | TextDigest], order: Sequence[str]) -> str:
    """Return one hash of several columns, by name."""
    whole = hashlib.blake2b(digest_size=16)
    for name in order:
        whole.update(name.encode() + b"\0" + columns[name].digest())
    return whole.hexdigest()
