"""`python -m tests.parity DIR [DIR...]`: compare osora with every golden case below the folders.

One line a case (PASS|FAIL|SKIP family/case max_abs_err), last line 'N passed, N failed, N skipped'.
Exit code 1 on any failure, 2 if no case was found.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.parity.runner import find_cases, run_case, set_exact_arithmetic


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    folders = parser.parse_args().folders
    cases = find_cases(folders)
    if not cases:
        print(f"no case.json below {', '.join(map(str, folders))}", file=sys.stderr)
        return 2
    set_exact_arithmetic()
    counts = Counter[str]()
    for case in cases:
        result = run_case(case)
        counts[result.status] += 1
        print(result.line(), flush=True)
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
