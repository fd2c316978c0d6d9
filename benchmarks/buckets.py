"""Buckets for whole columns against the same rule row by row, and the memory that ten million rows take.

    python benchmarks/buckets.py [--rows N] [--slow-rows N] [--large-rows N] [--runs N] [--csv] [--folder DIR]

Speed: `Buckets.assign` on --rows clips against `row_by_row` below on --slow-rows of them, interleaved runs, medians; the
buckets of those rows have to be the same. Memory: a process of its own opens shards of --large-rows clips, plans an epoch
and makes the first requests of 8 ranks; what counts is the most that was ever resident, libraries included.
--csv does the same with one csv. Exit code 1 when a bucket differs, the ratio is below 30 or the memory above 1.5 GB.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opensora_cli.data.aspect import aspect_table, pixel_count
from opensora_cli.data.buckets import Buckets, BucketTable

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


def row_by_row(table: BucketTable, data: Columns, fps_max: float, uniform: NDArray[np.float64]) -> Iterator[int]:
    """The rule as one would write it for a single clip; a row's only number in [0, 1) serves all of its decisions."""
    levels = []
    first = 0
    for name in sorted(table, key=pixel_count, reverse=True):
        ratios = [height / width for width, height in (map(float, ratio.split(":")) for ratio in aspect_table(name))]
        lengths = []
        for frames in sorted(table[name], reverse=True):
            chance = table[name][frames][0]
            keep, skip = chance if isinstance(chance, tuple) else (chance, 0.0)
            lengths.append((frames, keep, skip, first))
            first += len(ratios)
        levels.append((0.8 * pixel_count(name), lengths, ratios))

    def bucket(frames: int, height: int, width: int, fps: float, number: float) -> int:
        if not math.isnan(fps) and fps >= fps_max:
            frames //= math.ceil(fps / fps_max)
        for least, lengths, ratios in levels:
            if height * width < least:
                continue
            found = None
            if frames == 1:
                one, keep, _, place = lengths[-1]
                found = place if one == 1 and number < keep else None
            else:
                for length, keep, skip, place in lengths:
                    if frames < length or length == 1 or (skip > 0 and number <= skip):
                        continue
                    found = place if number <= keep else None
                    break
            if found is not None:
                shape = height / width
                return found + min(range(len(ratios)), key=lambda n: abs(shape - ratios[n]))
        return -1

    rows = zip(
        *(data[name].tolist() for name in ("num_frames", "height", "width", "fps")), uniform.tolist(), strict=True
    )
    for frames, height, width, fps, number in rows:
        yield bucket(frames, height, width, fps, number)


def speed(name: str, table: BucketTable, rows: int, slow_rows: int, runs: int) -> bool:
    data, buckets = columns(rows), Buckets(table)
    uniform = np.random.default_rng(1).random(rows)
    few = {key: column[:slow_rows] for key, column in data.items()}
    order = [data[key] for key in ("num_frames", "height", "width", "fps")]
    fast, slow = [], []
    for _ in range(runs):
        started = time.perf_counter()
        buckets.assign(*order, 24, seed=0, epoch=0)
        fast.append((time.perf_counter() - started) / rows)
        started = time.perf_counter()
        want = list(row_by_row(table, few, 24, uniform[:slow_rows]))
        slow.append((time.perf_counter() - started) / slow_rows)
    got = buckets.assign_by(*(column[:slow_rows] for column in order), 24, lambda at, _: uniform[at]).bucket
    same = got.tolist() == want
    ratio = statistics.median(slow) / statistics.median(fast)
    print(
        f"{name:8} {rows:,} rows: {statistics.median(fast) * 1e9:.0f} ns a row, row by row {statistics.median(slow) * 1e9:.0f} ns: "
        f"ratio {ratio:.0f}, at least {LEAST_RATIO} wanted; {np.mean(got >= 0):.0%} in buckets"
        + ("" if same else "; THE BUCKETS DIFFER"),
        flush=True,
    )
    return same and ratio >= LEAST_RATIO


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
    print(f"  {name:38} {now - before:7.2f} s   resident {resident('VmRSS'):.3f} GB, at most {resident('VmHWM'):.3f} GB", flush=True)
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
