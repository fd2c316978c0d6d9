"""Find cases, run their family's checks, compare, print."""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tests.parity.case import Case, Tolerance

FAMILIES = frozenset(file.stem for file in Path(__file__).with_name("families").glob("*.py")) - {"__init__"}
"""Families that osora builds; each has a module of that name beside this file, in families/."""

Checks = Iterator[tuple[str, object, object]]
Status = Literal["PASS", "FAIL", "SKIP"]


class NotBuiltError(Exception):
    """Raised by a family for a case of a model that osora does not build."""


@dataclass
class Result:
    """What became of one case."""

    case: Case
    status: Status = "PASS"
    max_abs_err: float = 0.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return the report of the case: one line, and one more for each problem."""
        head = f"{self.status} {self.case.family}/{self.case.name}"
        if self.status != "SKIP":
            head += f" {self.max_abs_err:.3g}"
        head += "".join(f" ({note})" for note in dict.fromkeys(self.notes))
        return "\n".join([head, *(f"     {problem}" for problem in self.problems)])


def set_exact_arithmetic() -> None:
    """Turn TF32 off and take one thread, so that the numbers do not depend on the machine more than they must."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def find_cases(folders: Iterable[Path]) -> list[Case]:
    """Return every case below the folders, sorted: folders with a case.json, and the files of folders named keys."""
    paths: set[Path] = set()
    for folder in (folder.resolve() for folder in folders):
        paths.update(path.parent for path in folder.rglob("case.json"))
        paths.update(path for path in folder.rglob("*.json") if path.parent.name == "keys" and path.name != "case.json")
        if folder.suffix == ".json" and folder.is_file():
            paths.add(folder.parent if folder.name == "case.json" else folder)
    return [Case(path, path.parents[1]) for path in sorted(paths)]


def run_case(case: Case) -> Result:
    """Build, compare, and never raise: an exception of the family is a failure of the case."""
    result = Result(case)
    if case.family not in FAMILIES:
        return Result(case, "SKIP", notes=[f"osora builds no {case.family}"])
    unchecked: set[str] = set()
    try:
        unchecked = set(case.outputs)
        for name, got, want in load_checks(case.family)(case):
            unchecked.discard(name)
            _compare(result, name, got, want)
    except NotBuiltError as reason:
        return Result(case, "SKIP", notes=[str(reason)])
    except Exception as error:  # whatever a model raises on a case is that case's failure, and the next case still runs
        result.problems.append(f"{type(error).__name__}: {error}")
    if unchecked:
        result.problems.append(f"not checked: {', '.join(sorted(unchecked))}")
    result.status = "FAIL" if result.problems else "PASS"
    return result


def load_checks(family: str) -> Callable[[Case], Checks]:
    """Return the `checks` of a known family."""
    assert family in FAMILIES
    return import_module(f"tests.parity.families.{family}").checks


def _compare(result: Result, name: str, got: object, want: object) -> None:
    error, problem = difference(got, want, result.case.tolerance)
    rule = deviation(result.case, name) if problem else None
    if rule is not None:
        result.notes.append(f"deviation: {rule['reason']}")
        limit = rule.get("atol")
        error, problem = (0.0, "") if limit is None else difference(got, want, Tolerance(limit, 0.0))
    if problem:
        result.problems.append(f"{name}: {problem}")
    result.max_abs_err = max(result.max_abs_err, error)


def difference(got: object, want: object, tolerance: Tolerance) -> tuple[float, str]:
    """Return the largest absolute error and, if it is too large, a sentence that says so; what is no number, by `==`."""
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        return _tensor_difference(got, want, tolerance)
    if isinstance(want, float) and isinstance(got, int | float) and not isinstance(got, bool):
        error = 0.0 if got == want else abs(got - want)
        return error, "" if error <= tolerance.atol + tolerance.rtol * abs(want) else f"{got!r} instead of {want!r}"
    if isinstance(got, Mapping) and isinstance(want, Mapping):
        if set(got) != set(want):
            return 0.0, f"keys differ: {sorted(map(str, set(got) ^ set(want)))[:8]}"
        return _worst([(repr(key), got[key], want[key]) for key in want], tolerance)
    if isinstance(got, list | tuple) and isinstance(want, list | tuple):
        if len(got) != len(want):
            return 0.0, f"{len(got)} entries instead of {len(want)}"
        return _worst([(str(i), one, two) for i, (one, two) in enumerate(zip(got, want, strict=True))], tolerance)
    return 0.0, "" if got == want else f"{got!r} instead of {want!r}"


def _tensor_difference(got: Tensor, want: Tensor, tolerance: Tolerance) -> tuple[float, str]:
    if got.shape != want.shape:
        return 0.0, f"shape {tuple(got.shape)} instead of {tuple(want.shape)}"
    if want.numel() == 0:
        return 0.0, ""
    error = (got.detach().double() - want.double()).abs()
    allowed = tolerance.atol + tolerance.rtol * want.double().abs()
    wrong = ~(error <= allowed)  # written so that nan is wrong
    worst = error.nan_to_num(nan=torch.inf).max().item()
    return worst, f"max abs error {worst:.3g}, {int(wrong.sum())} of {want.numel()} values off" if wrong.any() else ""


def _worst(entries: list[tuple[str, object, object]], tolerance: Tolerance) -> tuple[float, str]:
    largest, first = 0.0, ""
    for place, got, want in entries:
        error, problem = difference(got, want, tolerance)
        largest = max(largest, error)
        first = first or (f"[{place}] {problem}" if problem else "")
    return largest, first


def deviation(case: Case, output: str) -> dict[str, Any] | None:
    """Return the first rule of deviations.toml that covers this output of this case."""
    for rule in _deviations():
        matches = all(_look_up(case.info, key) == value for key, value in rule["condition"].items())
        if rule["family"] == case.family and fnmatchcase(output, rule["output"]) and matches:
            return rule
    return None


@cache
def _deviations() -> list[dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("deviations.toml").read_text(encoding="utf-8"))["deviation"]


def _look_up(table: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        table = table.get(key) if isinstance(table, Mapping) else None
    return table
