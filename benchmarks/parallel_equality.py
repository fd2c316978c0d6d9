"""Proof: every parallel mode trains what one process trains. Prints the greatest differences after ten updates.

python -m benchmarks.parallel_equality [MODE ...]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.distributed import jobs
from tests.distributed.modes import MODES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="*", help=f"all of them if left out: {', '.join(MODES)}")
    names = parser.parse_args().mode or list(MODES)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for processes in (2, 4):
            if chosen := jobs.of_size(names, processes):
                jobs.train(processes, out, *chosen)
            for name in chosen:
                found = jobs.differences(out / name, jobs.reference(out, MODES[name]))
                good = max(found.values()) < MODES[name].tolerance
                failed += not good
                parts = "  ".join(f"{part.rstrip('.')} {value:.1e}" for part, value in found.items())
                print(f"{'ok  ' if good else 'FAIL'} {name:26} {parts}", flush=True)
    print(f"{len(names) - failed} of {len(names)} modes equal one process, within 1e-5 in fp32")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
