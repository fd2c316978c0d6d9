"""Buckets for whole columns against the same rule row by row, and the memory that ten million rows take.

    python benchmarks/buckets.py [--rows N] [--slow-rows N] [--large-rows N] [--runs N] [--csv] [--folder DIR]

Speed: `Buckets.assign` on --rows clips against `row_by_row` below, plain Python, on --slow-rows of them, interleaved runs,
medians; the buckets of those rows have to be the same, draws included. Memory: a process of its own opens shards of
--large-rows clips, plans an epoch and makes the first requests of 8 ranks; what counts is the most that was ever resident,
libraries included. --csv does the same with one csv.
Exit code 1 when a bucket differs, the ratio is below 30 or the memory above 1.5 GB.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opensora_cli.data.aspect import aspect_table, closest_ratio, pixel_count
from opensora_cli.data.buckets import ENOUGH_PIXELS, BucketKey, Buckets, BucketTable
from opensora_cli.data.draws import Purpose
from opensora_cli.data.frames import map_target_fps

LEAST_RATIO = 30
MOST_GB = 1.5
SHARD_ROWS = 1_000_000
CSV_PART = 100_000
STAGE_1: BucketTable = {
    "256px": {1: (1.0, 45)}
    | dict.fromkeys(range(5, 34, 4), (1.0, 12))
    | dict.fromkeys(range(37, 66, 4), (1.0, 6))
    | dict.fromkeys(range(69, 98, 4), (1.0, 4))
    | dict.fromkeys(range(101, 130, 4), (1.0, 3)),
    "768px": {1: (0.5, 13)},
    "1024px": {1: (0.5, 7)},
}
DRAWN: BucketTable = {
    "256px": {1: (0.2, 45), 33: ((0.6, 0.3), 12), 97: ((1.0, 0.5), 6), 129: (0.4, 3)},
    "512px": {1: (0.5, 20), 33: (0.5, 3), 65: ((0.3, 0.2), 2), 129: ((0.6, 0.7), 1)},
    "768px": {1: (0.5, 13), 33: (0.3, 1)},
}
Columns = dict[str, NDArray[Any]]


def columns(rows: int, seed: int = 0) -> Columns:
    rng = np.random.default_rng(seed)
    shapes = np.array(
        [(256, 256), (360, 640), (480, 854), (720, 1280), (1080, 1920), (1920, 1080), (576, 720), (120, 160)]
    )
    picks = shapes[rng.integers(0, len(shapes), rows)] + rng.integers(0, 8, (rows, 2)) * 2
    return {
        "height": picks[:, 0].astype(np.int32),
        "width": picks[:, 1].astype(np.int32),
        "num_frames": np.where(rng.random(rows) < 0.2, 1, rng.integers(8, 400, rows)).astype(np.int32),
        "fps": rng.choice([23.976, 24.0, 25.0, 29.97, 30.0, 60.0, math.nan], rows),
    }


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


class RowDraws:
    """The draws of one row: `opensora_cli.data.draws.uniforms` in whole numbers of Python."""

    def __init__(self, seed: int, epoch: int, row: int) -> None:
        self.row = row
        self.key = 0
        for part in (Purpose.BUCKET, seed, epoch):
            self.key = mix(self.key + part)

    def __call__(self, slot: int) -> float:
        key = mix(self.key + slot)
        return (mix(mix(key ^ self.row) + key) >> 11) * 2.0**-53


def bucket_of(
    table: BucketTable, clip: tuple[int, int, int, float], fps_max: float, draw: RowDraws
) -> BucketKey | None:
    """The rule for one clip, as it is told: resolutions from the largest, lengths from the longest, then the nearest ratio."""
    frames, height, width, fps = clip
    _, interval = map_target_fps(fps, fps_max)
    frames //= interval
    first_slot = 0
    for resolution in sorted(table, key=pixel_count, reverse=True):
        lengths = sorted(table[resolution], reverse=True)
        if height * width >= ENOUGH_PIXELS * pixel_count(resolution):
            length = length_of(table[resolution], lengths, frames, first_slot, draw)
            if length is not None:
                return BucketKey(resolution, length, closest_ratio(height, width, aspect_table(resolution)))
        first_slot += 2 * len(lengths)
    return None


def length_of(row: Any, lengths: list[int], frames: int, first_slot: int, draw: RowDraws) -> int | None:
    if frames == 1:
        return 1 if 1 in row and draw(first_slot + 2 * lengths.index(1)) < row[1][0] else None
    for place, length in enumerate(lengths):
        if length == 1 or frames < length:
            continue
        chance = row[length][0]
        keep, skip = chance if isinstance(chance, tuple) else (chance, 0.0)
        if skip >= 1 or (skip > 0 and draw(first_slot + 2 * place + 1) <= skip):
            continue
        return length if keep >= 1 or draw(first_slot + 2 * place) <= keep else None
    return None


def row_by_row(table: BucketTable, data: Columns, fps_max: float) -> list[BucketKey | None]:
    clips = zip(*(data[name].tolist() for name in ("num_frames", "height", "width", "fps")), strict=True)
    return [bucket_of(table, clip, fps_max, RowDraws(0, 0, row)) for row, clip in enumerate(clips)]


def speed(name: str, table: BucketTable, rows: int, slow_rows: int, runs: int) -> bool:
    data, buckets = columns(rows), Buckets(table)
    few = {key: column[:slow_rows] for key, column in data.items()}
    order = [data[key] for key in ("num_frames", "height", "width", "fps")]
    fast, slow = [], []
    for _ in range(runs):
        started = time.perf_counter()
        got = buckets.assign(*order, 24, seed=0, epoch=0).bucket
        fast.append((time.perf_counter() - started) / rows)
        started = time.perf_counter()
        want = row_by_row(table, few, 24)
        slow.append((time.perf_counter() - started) / slow_rows)
    same = [None if at < 0 else buckets.keys[at] for at in got[:slow_rows]] == want
    one, other = statistics.median(fast), statistics.median(slow)
    print(
        f"{name:8} {rows:,} rows: {one * 1e9:.0f} ns a row, row by row {other * 1e6:.1f} us: ratio {other / one:.0f}, "
        f"at least {LEAST_RATIO} wanted; {np.mean(got >= 0):.0%} in buckets" + ("" if same else "; THE BUCKETS DIFFER"),
        flush=True,
    )
    return same and other / one >= LEAST_RATIO


def captions(rows: int, seed: int) -> "pa.Array":
    """Captions of about 300 characters, as in the sets that this size comes from."""
    rng = np.random.default_rng(seed)
    some = pa.array([" ".join(f"word{n}" for n in rng.integers(0, 20_000, 33)) for _ in range(4096)])
    return some.take(pa.array(rng.integers(0, len(some), rows)))


def part_of(first: int, rows: int) -> "pa.Table":
    paths = pa.array([f"{row // 1000:06d}/{row:09d}.mp4" for row in range(first, first + rows)])
    return pa.table({"path": paths, "text": captions(rows, first), **columns(rows, first)})


def write_shards(folder: Path, rows: int) -> Path:
    shards = []
    for first in range(0, rows, SHARD_ROWS):
        file = f"shard-{first // SHARD_ROWS:05d}.parquet"
        part = part_of(first, min(SHARD_ROWS, rows - first))
        pq.write_table(part, folder / file, row_group_size=4096, compression="zstd", use_dictionary=False)
        shards.append({"file": file, "rows": len(part), "sha256": f"{first:064x}"})
    manifest = {"format": 1, "columns": {}, "rows": rows, "root": ".", "shards": shards, "source": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "manifest.json"


def write_csv(folder: Path, rows: int) -> Path:
    path = folder / "meta.csv"
    for first in range(0, rows, CSV_PART):
        part = part_of(first, min(CSV_PART, rows - first)).to_pandas()
        part.to_csv(path, index=False, mode="a", header=first == 0)
    return path


MEASURED = """
import json, sys, time
from opensora_cli.data.batches import plan_epoch
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.manifest import read_manifest

def resident(what):
    line = next(l for l in open("/proc/self/status") if l.startswith(what))
    return int(line.split()[1]) * 1024 / 1e9

def step(name):
    global before
    now = time.perf_counter()
    print(f"  {name:38} {now - before:7.2f} s   resident {resident('VmRSS'):.3f} GB, at most {resident('VmHWM'):.3f} GB")
    before = now

before = time.perf_counter()
table = {name: {int(t): tuple(bucket) for t, bucket in row.items()} for name, row in json.loads(sys.argv[2]).items()}
step("libraries imported")
manifest = read_manifest(sys.argv[1])
step(f"{len(manifest):,} rows opened")
plan = plan_epoch(manifest, Buckets(table), 24, seed=0, epoch=0)
step(f"{len(plan):,} batches planned")
ranks = [plan.of_rank(rank, 8) for rank in range(8)]
step("shared out to 8 ranks")
for batches in ranks:
    for row in batches[0].rows + batches[0].substitutes:
        manifest.clip(row)
step(f"{sum(len(b[0].rows + b[0].substitutes) for b in ranks)} rows looked up")
print(resident("VmHWM"))
"""


def memory(path: Path, rows: int) -> bool:
    """Open, plan and look up in a child; VmHWM is the child's own high-water mark."""
    print(f"{path.name}, {path.stat().st_size / 1e9:.2f} GB:" if path.suffix == ".csv" else f"{path.name}:", flush=True)
    command = [sys.executable, "-c", MEASURED, str(path), json.dumps(STAGE_1)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    print("\n".join(lines))
    peak = float(last)
    print(f"memory   {rows:,} rows: {peak:.3f} GB at most, {MOST_GB} GB allowed", flush=True)
    return peak < MOST_GB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--slow-rows", type=int, default=30_000)
    parser.add_argument("--large-rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--csv", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the large table is written for the time being")
    args = parser.parse_args()
    fine = [
        speed(name, table, args.rows, args.slow_rows, args.runs)
        for name, table in (("stage 1", STAGE_1), ("drawn", DRAWN))
    ]
    if args.large_rows:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = (write_csv if args.csv else write_shards)(Path(folder), args.large_rows)
            fine.append(memory(path, args.large_rows))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
