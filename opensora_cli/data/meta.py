"""Filling a table of clips with what is in the files: the job behind `osora meta`.

Every answer is appended to `OUTPUT.partial` as soon as it is there, so that a killed run can go on where it was;
OUTPUT itself appears complete, by a rename.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from opensora_cli.data.manifest import read_table
from opensora_cli.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from opensora_cli.data.meta_columns import META_COLUMNS
from opensora_cli.data.meta_worker import Answer, crashed, look_at
from opensora_cli.data.work_pool import WorkerPool
from schemas.errors import OsoraError, UsageError

_WHOLE = ("height", "width", "num_frames", "resolution")


@dataclass
class MetaResult:
    """What a run found: the rows written, and (row, path, reason) of the files left out."""

    output: Path
    written: int
    resumed: int
    errors: list[tuple[int, str, str]] = field(default_factory=list)
    rebased: bool = False
    """Whether relative paths were rewritten, because OUTPUT lies in another folder than the table."""


def errors_path(output: Path) -> Path:
    """Return where the files that cannot be read are listed."""
    return output.with_name(f"{output.name}.errors.csv")


def partial_path(output: Path) -> Path:
    """Return where the answers of an unfinished run are kept."""
    return output.with_name(f"{output.name}.partial")


def read_input(source: Path) -> pd.DataFrame:
    """Return the table to fill: a csv or parquet file with a column path, or one row for every clip below a folder.

    Raises OsoraError for anything else.
    """
    if source.is_dir():
        suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        found = sorted(
            path for path in source.resolve().rglob("*") if path.suffix.lower() in suffixes and path.is_file()
        )
        if not found:
            raise OsoraError(
                f"{source}: no video or image below this folder (looked for {', '.join(sorted(suffixes))})."
            )
        return pd.DataFrame({"path": [str(path) for path in found]})
    table = read_table(source)
    if "path" not in table:
        raise OsoraError(
            f"{source}: no column path (found: {', '.join(map(str, table.columns)) or 'none'}). "
            "Rename the column that holds the files to path."
        )
    if table.empty:
        raise OsoraError(f"{source}: the table has a header and no rows.")
    return table


def run_meta(
    source: Path, output: Path, *, workers: int, resume: bool = False, report: Callable[[int, int], None] | None = None
) -> MetaResult:
    """Fill in height, width, num_frames, fps, aspect_ratio and resolution of every file, and write OUTPUT.

    `report(done, total)` is called after every file. Files that cannot be read are left out and listed beside OUTPUT.
    Raises OsoraError for a bad table, a bad OUTPUT name, a foreign partial file, or when no file could be read.
    """
    if output.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{output}: OUTPUT is written as csv or parquet; its name has to end in .csv or .parquet.")
    table = read_input(source)
    if not output.parent.is_dir():
        raise OsoraError(f"{output}: there is no folder {output.parent} to write to.")
    base = source if source.is_dir() else source.parent
    paths = [str(base / path) for path in table["path"].astype(str)]
    partial = _Partial(partial_path(output), paths)
    answers = partial.begin(resume)
    resumed = len(answers)
    try:
        _look_at_all(paths, answers, partial, workers, report)
    finally:
        partial.close()
    errors = [
        (row, str(table["path"].iloc[row]), answers[row]["error"]) for row in sorted(answers) if "error" in answers[row]
    ]
    _write_errors(errors_path(output), errors)
    good = [row for row in range(len(paths)) if "error" not in answers[row]]
    if not good:
        partial.path.unlink()
        raise OsoraError(
            f"{source}: none of {len(paths)} files can be read; the first: {errors[0][1]}: {errors[0][2]}. "
            f"All are listed in {errors_path(output)}."
        )
    rebased = _filled(table, good, answers, base, output)
    partial.path.unlink()
    return MetaResult(output, len(good), resumed, errors, rebased)


def _look_at_all(
    paths: list[str],
    answers: dict[int, Answer],
    partial: "_Partial",
    workers: int,
    report: Callable[[int, int], None] | None,
) -> None:
    missing = [(row, path) for row, path in enumerate(paths) if row not in answers]
    if not missing:
        return
    with WorkerPool(look_at, min(workers, len(missing)), crashed) as pool:
        for row, answer in pool.map(missing):
            answers[row] = answer
            partial.add(row, answer)
            if report:
                report(len(answers), len(paths))


def _filled(table: pd.DataFrame, rows: list[int], answers: dict[int, Answer], base: Path, output: Path) -> bool:
    """Write the table with its new columns; return whether relative paths had to be rewritten."""
    result = table.iloc[rows].copy()
    for name in META_COLUMNS:
        values: Any = [answers[row][name] for row in rows]
        result[name] = pd.array(values, dtype="int64" if name in _WHOLE else "float64")
    relative = [not Path(path).is_absolute() for path in result["path"].astype(str)]
    rebased = any(relative) and base.resolve() != output.parent.resolve()
    if rebased:
        start = output.parent.resolve()
        result["path"] = [
            os.path.relpath(base.resolve() / path, start) if is_relative else path
            for path, is_relative in zip(result["path"].astype(str), relative, strict=True)
        ]
    aside = output.with_name(f".{output.name}.new")
    if output.suffix.lower() == ".csv":
        result.to_csv(aside, index=False)
    else:
        result.to_parquet(aside, index=False)
    _to_disk(aside)
    aside.replace(output)
    return rebased


def _write_errors(path: Path, errors: list[tuple[int, str, str]]) -> None:
    if not errors:
        path.unlink(missing_ok=True)  # of an earlier run on the same OUTPUT
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "path", "reason"])
        table.writerows(errors)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Partial:
    """The answers so far: a line that names the input, then a line for each file; a torn last line does not count."""

    def __init__(self, path: Path, paths: list[str]) -> None:
        self.path = path
        digest = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()
        self._header = json.dumps({"files": len(paths), "sha256": digest})
        self._file: Any = None

    def begin(self, resume: bool) -> dict[int, Answer]:
        """Open the file for appending, and return the answers that a resumed run has already."""
        lines = self._whole_lines() if resume else []
        if lines and lines[0] != self._header:
            raise OsoraError(
                f"{self.path}: the unfinished run was on another list of files than this one. Give the same INPUT, or leave "
                "--resume away to begin anew."
            )
        answers = {entry["row"]: entry["answer"] for entry in map(json.loads, lines[1:])}
        text = "".join(f"{line}\n" for line in lines or [self._header])
        aside = self.path.with_name(f".{self.path.name}.new")
        aside.write_text(text, encoding="utf-8")
        aside.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        return answers

    def add(self, row: int, answer: Answer) -> None:
        """Append one answer; it outlives the process at once."""
        self._file.write(json.dumps({"row": row, "answer": answer}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _whole_lines(self) -> list[str]:
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()
