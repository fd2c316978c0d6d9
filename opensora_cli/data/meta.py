"""Filling a table of clips with what is in the files: the job behind `osora meta`.

Tables of any length: neither the rows nor the answers are held in memory. Answers go to `OUTPUT.partial` one by one, in the
order of the rows, so that a killed run can go on where it was; at the end the table is read once more and written with them.
OUTPUT itself appears complete, by a rename.
"""

import csv
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from opensora_cli.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from opensora_cli.data.meta_answers import AnswerLog
from opensora_cli.data.meta_columns import META_COLUMNS
from opensora_cli.data.meta_output import filled, filled_schema, table_writer
from opensora_cli.data.meta_worker import Answer, Look, Lost
from opensora_cli.data.remote import protocol_of, require_protocol
from opensora_cli.data.table_stream import TableStream, list_folder, open_table
from opensora_cli.data.work_pool import WorkerPool
from opensora_cli.files import whole_file
from schemas.errors import OsoraError, UsageError


@dataclass(frozen=True)
class MetaResult:
    """What a run did: rows written, rows that it found done before, and rows left out because their file cannot be read."""

    output: Path
    written: int
    resumed: int
    unreadable: int
    rebased: bool
    """Whether relative paths were rewritten, because OUTPUT lies in another folder than the table."""


@dataclass(frozen=True)
class MetaInput:
    """The table to fill, and what a first look at all of its paths told."""

    source: Path
    table: TableStream
    base: Path
    """Where relative paths start."""
    rows: int
    sha256: str
    has_relative: bool

    def cells(self) -> Iterator[str]:
        """Yield the column path."""
        for part in self.table.parts():
            yield from _path_cells(part)

    def located(self, cell: str) -> str:
        """Return where a row's file is, "" for a row without one."""
        # No Path: one for each of millions of rows takes longer than all the rest that is done here.
        return cell if not cell or protocol_of(cell) else os.path.join(self.base, cell)  # noqa: PTH118


def errors_path(output: Path) -> Path:
    """Return where the files that cannot be read are listed."""
    return output.with_name(f"{output.name}.errors.csv")


def partial_path(output: Path) -> Path:
    """Return where the answers of an unfinished run are kept."""
    return output.with_name(f"{output.name}.partial")


def listing_path(output: Path) -> Path:
    """Return where an unfinished run on a folder keeps the folder's list: files that come later are another run's."""
    return output.with_name(f"{output.name}.files")


def run_meta(
    source: Path,
    output: Path,
    *,
    workers: int,
    columns: tuple[str, ...] = META_COLUMNS,
    timeout: float = math.inf,
    resume: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> MetaResult:
    """Fill in the columns of every file, and write OUTPUT.

    `report(done, total)` is called at the start and after every file. Files that cannot be read, or take more than `timeout`
    seconds, are left out and listed beside OUTPUT.
    Raises OsoraError for a bad table, a bad OUTPUT name, a foreign partial file, or when no file could be read.
    """
    if output.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{output}: OUTPUT is written as csv or parquet; its name has to end in .csv or .parquet.")
    if not output.parent.is_dir():
        raise OsoraError(f"{output}: there is no folder {output.parent} to write to.")
    given = read_input(source, output, resume)
    log = AnswerLog(partial_path(output), columns=columns, rows=given.rows, sha256=given.sha256)
    with log:
        resumed = log.begin(resume)
        _look_at_all(given, log, resumed, (workers, columns, timeout), report)
    return _write(given, log, output, columns, resumed)


def read_input(source: Path, output: Path, resume: bool) -> MetaInput:
    """Return the table to fill: a csv or parquet file with a column path, or one row for every clip below a folder.

    A resumed run on a folder takes the list that the first one made. Raises OsoraError for anything else.
    """
    listing = listing_path(output)
    if not source.is_dir():
        return _surveyed(source, open_table(source), source.parent)
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    going_on = resume and listing.is_file() and partial_path(output).is_file()
    if not going_on and not list_folder(source, listing, suffixes):
        listing.unlink()
        raise OsoraError(f"{source}: no video or image below this folder (looked for {', '.join(sorted(suffixes))}).")
    return _surveyed(source, open_table(listing), source)


def _surveyed(source: Path, table: TableStream, base: Path) -> MetaInput:
    """Read all paths once: how many there are, their hash, and whether their protocols can be read."""
    if "path" not in table.schema.names:
        raise OsoraError(
            f"{source}: no column path (found: {', '.join(table.schema.names) or 'none'}). "
            "Rename the column that holds the files to path."
        )
    digest = _digest_of(base)
    rows, has_relative, protocols = 0, False, set[str]()
    for part in table.parts():
        for cell in _path_cells(part):
            digest.update(cell.encode() + b"\0")
            if protocol := protocol_of(cell):
                if protocol not in protocols:
                    require_protocol(protocol)
                protocols.add(protocol)
            else:
                has_relative |= bool(cell) and not os.path.isabs(cell)  # noqa: PTH117  # as in `located`
        rows += part.num_rows
    if not rows:
        raise OsoraError(f"{source}: the table has a header and no rows.")
    return MetaInput(source, table, base, rows, digest.hexdigest(), has_relative)


def _path_cells(part: Any) -> list[str]:
    return ["" if cell is None else str(cell) for cell in part.column("path").to_pylist()]


def _look_at_all(
    given: MetaInput,
    log: AnswerLog,
    resumed: int,
    how: tuple[int, tuple[str, ...], float],
    report: Callable[[int, int], None] | None,
) -> None:
    if resumed >= given.rows:
        return
    workers, columns, timeout = how
    tasks = (given.located(cell) for cell in islice(given.cells(), resumed, None))
    with ExitStack() as stack:
        scratch = stack.enter_context(TemporaryDirectory(prefix="osora-meta-"))
        size = min(workers, given.rows - resumed)
        pool: WorkerPool[Answer] = WorkerPool(Look(columns, scratch), size, Lost(timeout), limit=timeout)
        stack.enter_context(pool)
        if report:
            report(resumed, given.rows)
        for done, answer in enumerate(pool.map(tasks), start=resumed + 1):
            log.add(answer)
            if report:
                report(done, given.rows)


def _write(given: MetaInput, log: AnswerLog, output: Path, columns: tuple[str, ...], resumed: int) -> MetaResult:
    """Read the table once more, put each row's answer to it, and write what could be read and what could not."""
    schema = filled_schema(given.table.schema, columns)
    rebased = given.has_relative and given.base.resolve() != output.parent.resolve()
    start = output.parent.resolve() if rebased else None
    written, unreadable = 0, _Unreadable(errors_path(output))
    with whole_file(output) as aside:
        with table_writer(aside, output, schema) as table, unreadable.opened():
            for paths, part, answers in _answered(given, log):
                unreadable.add(paths, answers)
                good = [place for place, answer in enumerate(answers) if not isinstance(answer, str)]
                cells: Any = [answers[place] for place in good]
                kept = [_moved(given, paths[place], start) for place in good]
                table.write_batch(filled(part.take(pa.array(good, pa.int64())), kept, columns, cells, schema))
                written += len(good)
        _forget(output)
        if not written:
            raise OsoraError(
                f"{given.source}: none of {given.rows} files can be read; the first: {unreadable.first}. "
                f"All are listed in {unreadable.path}."
            )
    return MetaResult(output, written, resumed, unreadable.count, rebased)


class _Unreadable:
    """The list of files that cannot be read; no file where there are none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first = ""
        self._row = 0
        self._table: Any = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        with whole_file(self.path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            self._table = csv.writer(file, lineterminator="\n")
            self._table.writerow(["row", "path", "reason"])
            yield
        if not self.count:
            self.path.unlink()

    def add(self, paths: list[str], answers: list[Answer]) -> None:
        """Take the next rows; those whose answer is a reason are listed."""
        for row, (path, answer) in enumerate(zip(paths, answers, strict=True), start=self._row):
            if isinstance(answer, str):
                self._table.writerow([row, path, answer])
                self.first = self.first or f"{path}: {answer}"
                self.count += 1
        self._row += len(paths)


def _answered(given: MetaInput, log: AnswerLog) -> Iterator[tuple[list[str], Any, list[Answer]]]:
    """Yield (paths, rows, answers), a part at a time. Raises OsoraError if the table is not what it was."""
    answers = log.answers()
    digest = _digest_of(given.base)
    for part in given.table.parts():
        paths = _path_cells(part)
        for cell in paths:
            digest.update(cell.encode() + b"\0")
        found = list(islice(answers, len(paths)))
        if len(found) < len(paths):
            break
        yield paths, part, found
    if digest.hexdigest() != given.sha256:
        raise OsoraError(
            f"{given.source}: its paths are not those that it had when the run began. Run again without --resume, and leave "
            "the table alone until it is done."
        )


def _forget(output: Path) -> None:
    """Remove what only an unfinished run needs."""
    partial_path(output).unlink()
    listing_path(output).unlink(missing_ok=True)


def _digest_of(base: Path) -> Any:
    return hashlib.sha256(f"{base.resolve()}\0".encode("utf-8", "surrogateescape"))


def _moved(given: MetaInput, cell: str, start: Path | None) -> str:
    """Return a path as it is written in a table below `start`; None leaves it as it is."""
    if start is None or protocol_of(cell) or Path(cell).is_absolute():
        return cell
    return os.path.relpath(given.base.resolve() / cell, start)
