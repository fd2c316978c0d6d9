"""A look at the data that a recipe trains on, before anything is trained: the job behind `osora data check`."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opensora_cli.data.buckets import Buckets
from opensora_cli.data.draws import Ints
from opensora_cli.data.manifest import Manifest, read_manifest
from opensora_cli.data.rules import rules_of
from opensora_cli.data.table_stream import open_table
from schemas.data import BucketTable, DatasetConfig
from schemas.errors import OsoraError

SHOWN = 10
"""Rows that are named where something is wrong with many."""
QUANTILES = {"shortest": 0.0, "median": 0.5, "95 %": 0.95, "longest": 1.0}


@dataclass
class Found:
    """Rows of one kind: how many, and the first of them with what there is to say."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Count one more row."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(text)


@dataclass(frozen=True)
class BucketFill:
    """A bucket in the first epoch."""

    name: str
    clips: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Full batches; the clips left over wait for another epoch."""
        return self.clips // self.batch_size


@dataclass(frozen=True)
class Fit:
    """How the clips fill the buckets in the first epoch, and why the rest fits nowhere."""

    buckets: tuple[BucketFill, ...]
    """Buckets with clips, in the order in which they are tried."""
    empty: tuple[str, ...]
    """Resolutions and lengths that no clip falls into."""
    too_small: int
    too_short: int
    """Too few frames even with every frame used."""
    too_fast: int
    """Long enough, but too few frames are left when dataset.fps_max skips some."""
    not_drawn: int

    @property
    def batches(self) -> int:
        """Batches of the epoch, over all ranks."""
        return sum(bucket.batches for bucket in self.buckets)


@dataclass(frozen=True)
class DataReport:
    """All that a check found."""

    source: str
    rows: int
    columns: dict[str, str]
    """name -> Arrow type; cells of a csv are text."""
    looked_at: int
    missing: Found
    duplicates: Found
    captions: dict[str, int]
    """Characters of the captions, by the names of `QUANTILES`."""
    no_caption: Found
    fit: Fit

    @property
    def problems(self) -> list[str]:
        """What keeps training from being what the recipe says."""
        found = []
        if self.missing.count:
            found.append(f"{self.missing.count} of {self.looked_at} files cannot be read")
        if not self.fit.batches:
            found.append("no bucket has enough clips for one batch")
        return found


def check_data(
    dataset: DatasetConfig,
    table: BucketTable,
    *,
    compression: int,
    seed: int,
    files: int | None,
    report: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look at every row of a recipe's table, and at `files` of its files (drawn by `seed`; None is all of them).

    `report(rows done, all rows)` is called now and then. Raises OsoraError for a table that training would refuse.
    """
    if dataset.data_path is None:
        raise OsoraError(
            "dataset.data_path is not set: there is no data to check. Name a table: --set dataset.data_path=FILE"
        )
    manifest = read_manifest(dataset.data_path, motion=dataset.vmaf)
    rows = len(manifest)
    drawn = np.ones(rows, dtype=bool)
    if files is not None and files < rows:
        drawn[:] = False
        drawn[np.random.default_rng(seed).choice(rows, files, replace=False)] = True
    texts = _Texts(manifest)
    missing = Found()
    for row in range(rows):
        path = texts.look(row)
        if drawn[row] and (reason := why_unreadable(path)):
            missing.add(f"row {row}: {path}: {reason}")
        if report and (row % 1024 == 0 or row + 1 == rows):
            report(row + 1, rows)
    return DataReport(
        source=dataset.data_path,
        rows=rows,
        columns=_columns(Path(dataset.data_path)),
        looked_at=int(drawn.sum()),
        missing=missing,
        duplicates=texts.duplicates(),
        captions=texts.lengths(),
        no_caption=texts.empty,
        fit=_fit(manifest, Buckets(table, compression, rules=rules_of(dataset)), dataset.fps_max, seed),
    )


def why_unreadable(path: str) -> str:
    """Return why a file cannot be opened and have anything in it, "" if it can; does not look inside."""
    try:
        status = Path(path).stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if not status.st_size:
        return "is empty"
    return "" if os.access(path, os.R_OK) else "Permission denied"


class _Texts:
    """What there is to learn from paths and captions, in 12 bytes a row."""

    def __init__(self, manifest: Manifest) -> None:
        self.empty = Found()
        self._manifest = manifest
        self._hashes = np.empty(len(manifest), dtype=np.int64)
        self._lengths = np.empty(len(manifest), dtype=np.int32)

    def look(self, row: int) -> str:
        """Take in a row and return its path."""
        path, text = self._manifest.path(row), self._manifest.text(row)
        self._hashes[row] = hash(path)
        self._lengths[row] = len(text)
        if not text.strip():
            self.empty.add(f"row {row}: {path}")
        return path

    def duplicates(self) -> Found:
        """Return the rows whose path an earlier row has; equal 64-bit hashes count as equal paths."""
        order: Ints = np.argsort(self._hashes, kind="stable")
        same = np.flatnonzero(self._hashes[order[1:]] == self._hashes[order[:-1]])
        found = Found(len(same))
        for at in sorted(same.tolist(), key=lambda at: int(order[at + 1]))[:SHOWN]:
            row = int(order[at + 1])
            found.first.append(f"row {row}: {self._manifest.path(row)} is also row {int(order[at])}")
        return found

    def lengths(self) -> dict[str, int]:
        """Return the quantiles of the captions' lengths."""
        values = np.quantile(self._lengths, list(QUANTILES.values()), method="nearest")
        return {name: int(value) for name, value in zip(QUANTILES, values, strict=True)}


def _columns(path: Path) -> dict[str, str]:
    """Return the columns that training may read, with their types."""
    manifest = path / "manifest.json" if path.is_dir() else path
    if manifest.suffix == ".json":
        return dict(json.loads(manifest.read_text(encoding="utf-8"))["columns"])
    return {field.name: str(field.type) for field in open_table(path).schema}


def _fit(manifest: Manifest, buckets: Buckets, fps_max: float | None, seed: int) -> Fit:
    columns = manifest.frames, manifest.heights, manifest.widths, manifest.fps
    found = buckets.assign(*columns, fps_max, seed=seed, epoch=0)
    every_frame = found if fps_max is None else buckets.assign(*columns, None, seed=seed, epoch=0)
    counts = np.bincount(found.bucket[found.bucket >= 0], minlength=len(buckets.keys)).tolist()
    fills = [
        BucketFill(str(key), count, buckets.shape(key).batch_size)
        for key, count in zip(buckets.keys, counts, strict=True)
    ]
    used = {(key.resolution, key.frames) for key, count in zip(buckets.keys, counts, strict=True) if count}
    lengths = dict.fromkeys((key.resolution, key.frames) for key in buckets.keys)
    return Fit(
        buckets=tuple(fill for fill in fills if fill.clips),
        empty=tuple(f"{name} {frames} frames" for name, frames in lengths if (name, frames) not in used),
        too_small=found.too_small,
        too_short=every_frame.too_short,
        too_fast=found.too_short - every_frame.too_short,
        not_drawn=found.not_drawn,
    )
