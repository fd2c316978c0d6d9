"""The recipe resolver against MMEngine's Config on equivalent layered files, in one run on one machine.

    python benchmarks/config.py [--mmengine-python PATH] [--recipe NAME] [--runs N]

The recipe's layers are written as MMEngine files: one Python file a TOML file, with the same values, in a chain of bases. MMEngine runs in
`--mmengine-python`, or in a virtual environment that is made for this run (`pip install mmengine`, needs a package index).

    in-process   resolving and validating again and again, nothing cached, against `Config.fromfile`: at least 10 times as fast
    cold         `osora config validate` as a process against a process that loads the file: at most 300 ms, and under half
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
BOUNDS = {"in-process ratio": 10.0, "cold ratio": 2.0}
COLD_SECONDS = 0.3
ALL_SECONDS = 1.0

RESERVED = {"text": "text_encoders"}
"""Names that MMEngine keeps for itself."""

RESOLVE = """
import json, sys, time
from schemas.resolve import resolve
name, loads = sys.argv[1], int(sys.argv[2])
resolve(name)
started = time.perf_counter()
for _ in range(loads):
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
    samples: dict[str, list[float]] = {"osora": [], "mmengine": [], "osora cold": [], "mmengine cold": [], "all": []}
    validate = (str(OSORA), "config", "validate", recipe)
    process_seconds(*validate)
    process_seconds(python, "-c", COLD, config)
    for _ in range(runs):
        samples["osora"].append(printed_seconds(sys.executable, "-c", RESOLVE, recipe, str(LOADS)))
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
    with tempfile.TemporaryDirectory() as here:
        folder = Path(here)
        python = options.mmengine_python or mmengine_python(folder / "venv")
        files = write_mmengine(options.recipe, folder)
        found = measure(options.recipe, python, str(files[-1]), options.runs)
    count = sum(not name.startswith("layers/") for name in packaged_recipes())
    print(f"{options.recipe}: {len(files)} files, median of {options.runs} alternating runs")
    ratios = {
        "in-process ratio": found["mmengine"] / found["osora"],
        "cold ratio": found["mmengine cold"] / found["osora cold"],
    }
    print(f"in-process: osora {1e3 * found['osora']:.2f} ms, MMEngine {1e3 * found['mmengine']:.2f} ms")
    print(f"cold:       osora {1e3 * found['osora cold']:.0f} ms, MMEngine {1e3 * found['mmengine cold']:.0f} ms")
    print(f"all {count} recipes in one process: {1e3 * found['all']:.0f} ms, imports included")
    missed = [name for name, bound in BOUNDS.items() if ratios[name] < bound]
    missed += ["cold seconds"] if found["osora cold"] > COLD_SECONDS else []
    missed += ["all recipes"] if found["all"] > ALL_SECONDS else []
    for name, bound in BOUNDS.items():
        print(f"{name}: {ratios[name]:.1f} (at least {bound:g})")
    print(f"missed: {', '.join(missed)}" if missed else "every bound is kept; torch is never imported")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
