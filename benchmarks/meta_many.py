"""`osora meta` on many small clips, 1 % of them broken: all accounted for, and killed three times the same as not at all.

    python benchmarks/meta_many.py [--clips 20000] [--every 100] [--workers 2]

Makes the set in a temporary folder (hard links to a few clips), runs `osora meta` once in one go, and once killed with SIGKILL
after a quarter, a half and three quarters of the clips, with --resume each time. Prints what was found of every kind of
broken file, seconds, and the memory of the main process at its peak. Exit code 1 when a file is not accounted for or the
outputs differ.
"""

import argparse
import csv
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from opensora_cli.data.meta import errors_path, partial_path
from tests.unit.broken_clips import KINDS, make_set, obeying_permissions

OSORA = Path(sys.executable).parent / "osora"


def meta(table: Path, output: Path, workers: int) -> list[str]:
    command = [str(OSORA), "meta", str(table), str(output), "--workers", str(workers), "--resume"]
    return obeying_permissions(command)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_after(command: list[str], partial: Path, answers: int) -> int:
    """Run the command and kill it when there are so many answers; return how many it left behind."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and lines_of(partial) <= answers:
        time.sleep(0.01)
    if process.poll() is not None:
        raise SystemExit(f"it was done, or failed, before {answers} answers: exit code {process.returncode}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    return lines_of(partial) - 1


def unaccounted(output: Path, clips: int, broken: dict[int, str]) -> list[str]:
    """Return what is wrong: every row has to be in one of the two tables, and the broken ones in the list of errors."""
    with output.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with errors_path(output).open(encoding="utf-8", newline="") as file:
        errors = {int(row["row"]): row["reason"] for row in csv.DictReader(file)}
    wrong = []
    if texts != [f'clip {row}, "quoted"' for row in range(clips) if row not in errors]:
        wrong.append("the rows of the output are not the rest of the table, in its order")
    if set(errors) != set(broken):
        wrong.append(
            f"broken and not listed: {set(broken) - set(errors)}; listed and not broken: {set(errors) - set(broken)}"
        )
    for kind in KINDS:
        reasons = Counter(reason for row, reason in errors.items() if broken.get(row) == kind)
        print(f"  {kind:14} {sum(reasons.values()):5} listed: {'; '.join(sorted(reasons))}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        table, broken = make_set(folder, args.clips, args.every)
        print(f"{args.clips} clips, {len(broken)} of them broken", flush=True)
        whole, pieces = folder / "whole.csv", folder / "pieces.csv"
        started = time.perf_counter()
        done = subprocess.run(meta(table, whole, args.workers), check=True, capture_output=True, text=True)
        took = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"in one go: {took:.1f} s, {took / args.clips * 1e3:.2f} ms a clip, at most {peak:.0f} MiB in one process"
        )
        print("  " + done.stdout.splitlines()[-1])
        for quarter in (1, 2, 3):
            left = kill_after(meta(table, pieces, args.workers), partial_path(pieces), args.clips * quarter // 4)
            print(f"killed with {left} answers on disk", flush=True)
        done = subprocess.run(meta(table, pieces, args.workers), check=True, capture_output=True, text=True)
        print("  " + " | ".join(line for line in done.stdout.splitlines() if "done before" in line))
        wrong = unaccounted(pieces, args.clips, broken)
        if (
            whole.read_bytes() != pieces.read_bytes()
            or errors_path(whole).read_bytes() != errors_path(pieces).read_bytes()
        ):
            wrong.append("killed and resumed, the output differs from that of one go")
        leftovers = [path.name for path in folder.iterdir() if "partial" in path.name or ".files" in path.name]
        wrong += [f"left behind: {leftovers}"] if leftovers else []
    print("\n".join(wrong) if wrong else "every file accounted for; the outputs are equal byte for byte")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
