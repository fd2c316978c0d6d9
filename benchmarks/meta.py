"""`osora meta` against decoding every frame: the same clips, the same pool of processes, interleaved runs.

    python benchmarks/meta.py [FOLDER] [--workers N] [--runs N]

Prints the median seconds of both and their ratio. Exit code 1 when the answers differ or the ratio is below 20.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av

from opensora_cli.data.meta_columns import META_COLUMNS
from opensora_cli.data.meta_worker import Answer, Look, Lost
from opensora_cli.data.work_pool import WorkerPool

LEAST_RATIO = 20
REPEATS = 4
"""How often each clip is looked at in one run."""


def decode_everything(path: str) -> Answer:
    """What upstream does: count the frames by decoding them."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = sum(1 for _ in container.decode(stream))
    return [frames if name == "num_frames" else None for name in META_COLUMNS]


def seconds(pool: WorkerPool[Answer], paths: list[str]) -> tuple[float, list[int]]:
    started = time.perf_counter()
    answers = list(pool.map(paths * REPEATS))
    took = time.perf_counter() - started
    place = META_COLUMNS.index("num_frames")
    return took, [int(answer[place] or 0) for answer in answers[: len(paths)] if not isinstance(answer, str)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "media"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    paths = [str(path) for path in sorted(args.folder.iterdir()) if path.suffix in (".mp4", ".mkv", ".webm")]
    if not paths:
        print(f"no clips in {args.folder}", file=sys.stderr)
        return 2
    ways: dict[str, Callable[[str], Answer]] = {"osora meta": Look(), "decode everything": decode_everything}
    pools = {name: WorkerPool(work, args.workers, Lost(math.inf)) for name, work in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, list[int]] = {}
    for run in range(args.runs + 1):
        for name, pool in pools.items():
            took, counts[name] = seconds(pool, paths)
            if run:  # the first run starts the processes and fills the file cache
                times[name].append(took)
    for pool in pools.values():
        pool.__exit__(None, None, None)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(
            f"{name:18} {median * 1e3 / (len(paths) * REPEATS):8.2f} ms a clip ({args.workers} processes, median of {args.runs})"
        )
    ratio = medians["decode everything"] / medians["osora meta"]
    print(f"ratio {ratio:.1f}, at least {LEAST_RATIO} wanted")
    if counts["osora meta"] != counts["decode everything"]:
        print("the frame counts differ", file=sys.stderr)
        return 1
    return 0 if ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
