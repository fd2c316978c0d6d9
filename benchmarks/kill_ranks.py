"""Proof: a job of two processes, one of them killed at a random moment, stops soon and resumes to the uninterrupted result.

    python -m benchmarks.kill_ranks [SEEDS]

Prints a line for each seed; exit code 1 when a job took more than 30 s to stop or a resumed run differs in any bit.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.distributed import jobs

MODE = "fsdp-2"
LIMIT_SECONDS = 30


def kill_once(seed: int, out: Path) -> tuple[int, int, float]:
    """Kill one process within the job's updates or its saving; return rank, updates that were done, seconds to the stop."""
    draw = random.Random(seed)
    rank, update, delay = draw.randrange(2), draw.randrange(10), draw.random() * 0.3
    job = jobs.start(2, "-m", "tests.distributed.train_tiny", out, 2, MODE)
    metrics = out / MODE / "metrics.jsonl"
    while job.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < update):
        time.sleep(0.002)
    time.sleep(delay)
    if job.poll() is None:
        os.kill(int((out / f"pid-{rank}").read_text()), signal.SIGKILL)
    killed = time.monotonic()
    job.communicate()
    return rank, metrics.read_text().count("\n"), time.monotonic() - killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", type=int, default=20)
    seeds = parser.parse_args().seeds
    failed, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        whole.mkdir()
        jobs.train(2, whole, MODE)
        for seed in range(seeds):
            out = Path(folder, str(seed))
            out.mkdir()
            rank, updates, seconds = kill_once(seed, out)
            jobs.train(2, out, MODE, every=2)
            same = jobs.same_state(out / MODE, whole / MODE)
            good = same and seconds < LIMIT_SECONDS
            failed, slowest = failed + (not good), max(slowest, seconds)
            print(
                f"{'ok  ' if good else 'FAIL'} seed {seed:2}: rank {rank} after {updates} updates, {seconds:.1f} s",
                flush=True,
            )
    print(f"{seeds - failed} of {seeds} resumed bit for bit; the slowest job took {slowest:.1f} s to stop")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
