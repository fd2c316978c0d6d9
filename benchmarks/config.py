"""The recipe resolver against MMEngine's Config on equivalent layered files, in one run on one machine.

    python benchmarks/config.py [--mmengine-python PATH] [--recipe NAME] [--runs N]

The recipe's layers are written as MMEngine files: one Python file a TOML file, with the same values, in a chain of bases.
MMEngine runs in `--mmengine-python`, or in a virtual environment that is made for this run (`pip install mmengine`, which
needs a package index).

    in-process   resolving and validating again and again against `Config.fromfile`: at least 10 times as fast. Both read every
                 file each time; osora parses no text twice in one process, and the figure without that is printed too
    cold         `osora config validate` as a process against a process that loads the file: at most 300 ms. The goal of half
                 of MMEngine's time is not reached: docs/tried.md says where the time goes
    all          every recipe of the repository in one process: under 1 s

Runs alternate and medians count. Exit code 1 when a bound is missed, or when torch is imported.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path
from typing import Any

from schemas.resolve import packaged_recipes, resolve

OSORA = Path(sys.executable).parent / "osora"
LOADS = 20
IN_PROCESS_RATIO = 10.0
COLD_SECONDS = 0.3
ALL_SECONDS = 1.0

RESERVED = {"text": "text_encoders"}
"""Names that MMEngine keeps for itself."""

RESOLVE = """
import json, sys, time
from schemas.resolve import resolve, sources
name, loads, anew = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "anew"
resolve(name)
started = time.perf_counter()
for _ in range(loads):
    if anew:
        sources.parsed.cache_clear()
    resolve(name)
print(json.dumps((time.perf_counter() - started) / loads))
assert "torch" not in sys.modules, "torch is imported"
"""
RESOLVE_ALL = """
import json, sys, time
started = time.perf_counter()
from schemas.resolve import packaged_recipes, resolve
for name in packaged_recipes():
    if not name.startswith("layers/"):
        resolve(name)
print(json.dumps(time.perf_counter() - started))
assert "torch" not in sys.modules, "torch is imported"
"""
FROMFILE = """
import json, sys, time
from mmengine.config import Config
path, loads = sys.argv[1], int(sys.argv[2])
Config.fromfile(path)
started = time.perf_counter()
for _ in range(loads):
    Config.fromfile(path)
print(json.dumps((time.perf_counter() - started) / max(1, loads)))
"""
COLD = "import sys; from mmengine.config import Config; Config.fromfile(sys.argv[1])"


def write_mmengine(name: str, folder: Path) -> list[Path]:
    """Write the layers of a recipe as a chain of MMEngine files, weakest first.

    A chain, as MMEngine refuses two bases of one file that share a key; it reads as many files as osora.
    """
    files: list[Path] = []
    for layer in resolve(name).layers:
        values = tomllib.loads(Path(layer).read_text())
        values.pop("_base_", None)
        lines = [f"_base_ = [{files[-1].name!r}]"] if files else []
        lines += [f"{RESERVED.get(key, key)} = {as_python(value)!r}" for key, value in values.items()]
        files.append(folder / f"layer_{len(files)}.py")
        files[-1].write_text("\n".join(lines) + "\n")
    return files


def as_python(value: Any) -> Any:
    """Bucket lengths are numbers in Python and tuples are what Open-Sora writes for buckets."""
    if isinstance(value, dict):
        return {int(key) if key.isdecimal() else key: as_python(item) for key, item in value.items()}
    return tuple(as_python(item) for item in value) if isinstance(value, list) else value


def mmengine_python(folder: Path) -> str:
    """Make a virtual environment with MMEngine."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "mmengine"], check=True)
    return python


def printed_seconds(*command: str) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def process_seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


def measure(recipe: str, python: str, config: str, runs: int) -> dict[str, float]:
    names = ("osora", "osora anew", "mmengine", "osora cold", "mmengine cold", "all")
    samples: dict[str, list[float]] = {name: [] for name in names}
    validate = (str(OSORA), "config", "validate", recipe)
    process_seconds(*validate)
    process_seconds(python, "-c", COLD, config)
    for _ in range(runs):
        samples["osora"].append(printed_seconds(sys.executable, "-c", RESOLVE, recipe, str(LOADS), ""))
        samples["osora anew"].append(printed_seconds(sys.executable, "-c", RESOLVE, recipe, str(LOADS), "anew"))
        samples["mmengine"].append(printed_seconds(python, "-c", FROMFILE, config, str(LOADS)))
        samples["osora cold"].append(process_seconds(*validate))
        samples["mmengine cold"].append(process_seconds(python, "-c", COLD, config))
        samples["all"].append(printed_seconds(sys.executable, "-c", RESOLVE_ALL))
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmengine-python", help="a Python that has mmengine")
    parser.add_argument("--recipe", default="stage2_i2v")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as aside:
        folder = Path(here)
        python = options.mmengine_python or mmengine_python(Path(aside))
        files = write_mmengine(options.recipe, folder)
        found = measure(options.recipe, python, str(files[-1]), options.runs)
    count = sum(not name.startswith("layers/") for name in packaged_recipes())
    print(f"{options.recipe}: {len(files)} files, median of {options.runs} alternating runs")
    ms = {name: 1e3 * seconds for name, seconds in found.items()}
    ratio, anew = ms["mmengine"] / ms["osora"], ms["mmengine"] / ms["osora anew"]
    cold = ms["mmengine cold"] / ms["osora cold"]
    print(f"in-process: osora {ms['osora']:.2f} ms, MMEngine {ms['mmengine']:.2f} ms: {ratio:.1f} times as fast")
    print(f"            parsing every text anew {ms['osora anew']:.2f} ms: {anew:.1f} times as fast")
    print(
        f"cold:       osora {ms['osora cold']:.0f} ms, MMEngine {ms['mmengine cold']:.0f} ms: {cold:.2f} times as fast"
    )
    print(f"all {count} recipes in one process: {1e3 * found['all']:.0f} ms, imports included")
    bounds = {
        f"in-process: at least {IN_PROCESS_RATIO:g} times as fast": ratio >= IN_PROCESS_RATIO,
        f"cold: at most {1e3 * COLD_SECONDS:.0f} ms": found["osora cold"] <= COLD_SECONDS,
        f"all recipes: under {ALL_SECONDS:g} s": found["all"] < ALL_SECONDS,
    }
    missed = [bound for bound, kept in bounds.items() if not kept]
    print(f"missed: {'; '.join(missed)}" if missed else "every bound is kept; torch is never imported")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
