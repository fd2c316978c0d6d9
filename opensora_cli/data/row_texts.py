"""Paths and captions of clips, read from the table when they are asked for: a table's text never lies in memory as a whole."""

import csv
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import OsoraError

CACHE_BYTES = 128 * 2**20
"""Row groups that are kept, by their size in memory: all of a small table, and a few dozen groups of a large one."""
OPEN_FILES = 16


class RowText(NamedTuple):
    """A row's file, as it stands in the table, and its caption."""

    path: str
    text: str


class RowTexts(Protocol):
    """Where rows are looked up."""

    def read(self, row: int) -> RowText:
        """Return the path and caption of a row. Raises OsoraError when the file is not what it was."""
        ...


class CsvLines:
    """The lines of a csv as text; `place` is the byte at which the next one starts."""

    def __init__(self, file: BinaryIO, place: int = 0) -> None:
        self.place = place
        self._file = file
        file.seek(place)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        text = line.decode("utf-8-sig" if self.place == 0 else "utf-8")
        self.place += len(line)
        return text


class CsvTexts:
    """Rows of a csv by the byte at which each starts and a mark of what it says: 12 bytes of memory a row."""

    def __init__(self, source: Path, names: Sequence[str]) -> None:
        self._source = source
        self._pick = itemgetter(*(names.index(name) for name in RowText._fields))
        self._starts = array("q")
        self._marks = array("I")

    def add(self, starts: Sequence[int], rows: Sequence[Sequence[str]]) -> None:
        """Note where the next rows start."""
        self._starts.extend(starts)
        self._marks.extend(map(self._mark, rows))

    def read(self, row: int) -> RowText:
        """Return the path and caption of a row. Raises OsoraError when it is not what it was when the table was opened."""
        try:
            with self._source.open("rb") as file:
                record = next(csv.reader(CsvLines(file, self._starts[row]), strict=True))
            if self._mark(record) == self._marks[row]:
                return RowText(*self._pick(record))
        except (OSError, ValueError, IndexError, StopIteration, csv.Error) as error:
            raise self._changed(row) from error
        raise self._changed(row)

    def _mark(self, record: Sequence[str]) -> int:
        return hash(self._pick(record)) & 0xFFFFFFFF

    def _changed(self, row: int) -> OsoraError:
        return OsoraError(
            f"{self._source}: row {row} is not what it was when the job started: the table was changed while it was in use. "
            "Start the job again."
        )


class ParquetTexts:
    """Rows of parquet files, one behind the other; a row costs the reading of its row group unless that is still kept."""

    def __init__(self, files: Sequence[Path], cache_bytes: int = CACHE_BYTES) -> None:
        self._files = list(files)
        self._footers: list[Any] = [pq.read_metadata(file) for file in files]
        self._groups = [(n, group) for n, footer in enumerate(self._footers) for group in range(footer.num_row_groups)]
        sizes = [self._footers[file].row_group(group).num_rows for file, group in self._groups]
        self._ends = np.cumsum(np.array(sizes, dtype=np.int64))
        self._lock = threading.Lock()
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._kept_bytes = 0
        self._open: OrderedDict[int, Any] = OrderedDict()
        self.largest_group = max(sizes, default=0)
        """Rows of the largest row group: what the look-up of one row may cost."""

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, row: int) -> RowText:
        """Return the path and caption of a row. Raises OsoraError, with file and row group, for damaged data."""
        place = int(np.searchsorted(self._ends, row, side="right"))
        with self._lock:
            table = self._group(place)
        at = row - int(self._ends[place]) + table.num_rows
        path, text = (table.column(name)[at].as_py() for name in RowText._fields)
        if path is None:
            raise OsoraError(f"{self._files[self._groups[place][0]]}: row {row} has no path.")
        return RowText(str(path), "" if text is None else str(text))

    def _group(self, place: int) -> Any:
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        number, group = self._groups[place]
        try:
            table = self._file(number).read_row_group(group, columns=list(RowText._fields), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise OsoraError(
                f"{self._files[number]}: row group {group} cannot be read: {error}. The file was damaged or changed since it "
                "was written: write it again."
            ) from error
        self._kept[place] = table
        self._kept_bytes += table.nbytes
        while self._kept_bytes > self._cache_bytes and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return table

    def _file(self, number: int) -> Any:
        if number not in self._open:
            path = self._files[number]
            self._open[number] = pq.ParquetFile(
                path, metadata=self._footers[number], page_checksum_verification=True, pre_buffer=False
            )
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]
