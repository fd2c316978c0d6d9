"""Every golden case passes: the committed ones always, the whole reference data where it lies beside the repository."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import runner
from tests.parity.case import Case, Tolerance

REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = REPOSITORY / "tests" / "golden"
REFERENCE = REPOSITORY.parent / "shared" / "golden"
SMALL = COMMITTED / "mmdit" / "d_mixed_unfused_interleaved"


def name(case: Case) -> str:
    return f"{case.root.name}-{case.family}-{case.name}"


@pytest.mark.parametrize("case", runner.find_cases([COMMITTED]), ids=name)
def test_committed_case(case: Case) -> None:
    result = runner.run_case(case)
    assert result.status == "PASS", result.line()


@pytest.mark.parametrize(
    "case",
    [c for c in runner.find_cases([REFERENCE / "v1", REFERENCE / "v2"]) if c.family in runner.FAMILIES],
    ids=name,
)
def test_reference_case(case: Case) -> None:
    result = runner.run_case(case)
    assert result.status == "PASS" or (case.family == "keys" and result.status == "SKIP"), result.line()


def test_a_wrong_number_fails_and_is_named(tmp_path: Path) -> None:
    case = copy_of_small(tmp_path)
    outputs = load_file(case.path / "outputs.safetensors")
    outputs["out"][0, 0, 0] += 1e-3
    save_file(outputs, case.path / "outputs.safetensors")
    result = runner.run_case(case)
    assert result.status == "FAIL"
    assert [line for line in result.problems if line.startswith("out: max abs error 0.001")]


def test_an_output_that_no_check_knows_fails(tmp_path: Path) -> None:
    case = copy_of_small(tmp_path)
    save_file(
        {**load_file(case.path / "outputs.safetensors"), "mid.new": torch.zeros(1)}, case.path / "outputs.safetensors"
    )
    assert runner.run_case(case).status == "FAIL"


def test_an_exception_is_a_failure_of_that_case(tmp_path: Path) -> None:
    case = copy_of_small(tmp_path)
    info = json.loads((case.path / "case.json").read_text())
    info["ctor"]["depht"] = 3
    (case.path / "case.json").write_text(json.dumps(info))
    result = runner.run_case(case)
    assert result.status == "FAIL"
    assert "depht" in result.line()


def test_a_family_that_is_not_built_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "sora_next" / "a"
    folder.mkdir(parents=True)
    (folder / "case.json").write_text("{}")
    assert [runner.run_case(case).status for case in runner.find_cases([tmp_path])] == ["SKIP"]


@pytest.mark.parametrize(
    ("got", "want", "fine"),
    [
        (torch.tensor([1.0, 2.001]), torch.tensor([1.0, 2.0]), True),
        (torch.tensor([1.0, 2.1]), torch.tensor([1.0, 2.0]), False),
        (torch.tensor([torch.nan]), torch.tensor([1.0]), False),
        (torch.zeros(2, 1), torch.zeros(2), False),
        ([1, {"a": 0.5}], (1, {"a": 0.5005}), True),
        ([1, {"a": 0.5}], (1, {"b": 0.5}), False),
        ([1, 2], [1], False),
        ("15.0 FPS", "15 FPS", False),
    ],
)
def test_difference(got: object, want: object, fine: bool) -> None:
    assert (runner.difference(got, want, Tolerance(1e-3, 1e-4))[1] == "") is fine


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "PASS"),
        ({"atol": 1e-2}, "PASS"),
        ({"atol": 1e-4}, "FAIL"),
        ({"output": "los*"}, "FAIL"),
        ({"condition": {"ctor.depth": 2}}, "FAIL"),
        ({"family": "train"}, "FAIL"),
    ],
)
def test_a_deviation_covers_only_what_its_rule_says(
    change: dict[str, object], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"family": "mmdit", "output": "ou*", "condition": {"ctor.depth": 1}, "reason": "because"}
    monkeypatch.setattr(runner, "_deviations", lambda: [rule | change])
    case = copy_of_small(tmp_path)
    outputs = load_file(case.path / "outputs.safetensors")
    outputs["out"][0, 0, 0] += 1e-3
    save_file(outputs, case.path / "outputs.safetensors")
    result = runner.run_case(case)
    assert result.status == status, result.line()
    assert status == "FAIL" or "(deviation: because)" in result.line()


def copy_of_small(folder: Path) -> Case:
    path = folder / "mmdit" / "d"
    shutil.copytree(SMALL, path)
    return Case(path, folder)
