"""`osora config validate` for machines: SARIF 2.1.0 and JUnit; warnings beside errors."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from tests.cli.conftest import Osora

GOOD = 'kind = "train"\nmax_steps = 2000\n[buckets]\n"256px" = { 1 = [1.0, 4] }\n'
WARNS = GOOD.replace("2000", "20") + "[logging]\nlog_every = 5\n"
BAD = GOOD + "[optim]\nlrr = 1\nwarmup_steps = 5000\n"
SARIF = Draft202012Validator(json.loads((Path(__file__).parent / "sarif.schema.json").read_text()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("warns", WARNS), ("ünter bad", BAD)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


FILES = ["good.toml", "warns.toml", "ünter bad.toml"]


@pytest.mark.usefixtures("folder")
def test_sarif_keeps_to_the_standard_and_points_at_every_place(osora: Osora) -> None:
    done = osora("config", "validate", *FILES, "--format", "sarif")
    assert done.returncode == 1
    log = json.loads(done.stdout)
    assert [error.message for error in SARIF.iter_errors(log)] == []
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["OSR001", "OSR401", "OSR404"]
    warning, unknown, warmup = run["results"]
    assert (warning["ruleId"], warning["level"]) == ("OSR404", "warning")
    assert (unknown["ruleId"], unknown["ruleIndex"], unknown["level"]) == ("OSR001", 0, "error")
    place = unknown["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "%C3%BCnter%20bad.toml"
    assert place["region"] == {"startLine": 6, "startColumn": 1, "endColumn": 4}
    second = warmup["relatedLocations"][0]
    assert second["message"]["text"] == "`max_steps` comes from"
    assert second["physicalLocation"]["region"]["startLine"] == 2


@pytest.mark.usefixtures("folder")
def test_sarif_of_an_option_points_at_the_recipe_and_nothing_wrong_is_an_empty_run(
    osora: Osora, tmp_path: Path
) -> None:
    done = osora("config", "validate", "good.toml", "--format", "sarif", "--set", "optim.lr=0")
    (result,) = json.loads(done.stdout)["runs"][0]["results"]
    assert result["locations"] == [{"physicalLocation": {"artifactLocation": {"uri": "good.toml"}}}]
    fine = osora("config", "validate", tmp_path / "good.toml", "--format", "sarif")
    log = json.loads(fine.stdout)
    assert (fine.returncode, log["runs"][0]["results"]) == (0, [])
    assert not list(SARIF.iter_errors(log))


def test_the_standards_schema_can_fail() -> None:
    assert list(SARIF.iter_errors({"version": "2.1.0", "runs": [{"results": []}]}))


@pytest.mark.usefixtures("folder")
def test_junit_has_a_case_a_file(osora: Osora) -> None:
    done = osora("config", "validate", *FILES, "--format", "junit")
    assert done.returncode == 1
    suites = ElementTree.fromstring(done.stdout)
    (suite,) = suites
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
    }
    good, warns, bad = suite
    assert [case.get("name") for case in suite] == FILES
    assert list(good) == []
    assert [child.tag for child in warns] == ["system-out"]
    assert "OSR404 warning" in (warns[0].text or "")
    assert bad[0].tag == "failure"
    assert bad[0].get("type") == "OSR001"
    assert "      6 | lrr = 1\n" in (bad[0].text or "")
    assert "OSR401" in (bad[0].text or "")


def test_junit_of_what_xml_cannot_hold(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('kind = "\\u0001\\u001b[31m"\n')
    done = osora("config", "validate", "x.toml", "--format", "junit")
    assert ElementTree.fromstring(done.stdout)[0][0][0].get("type") == "OSR005"


@pytest.mark.usefixtures("folder")
def test_a_warning_is_shown_and_passes(osora: Osora) -> None:
    done = osora("config", "validate", "warns.toml")
    assert done.returncode == 0
    assert "OSR404 warning: checkpoint.every = 1000 is more than max_steps = 20" in done.stdout
    assert done.stdout.endswith("warns.toml: ok (train, 1 warning)\n")
    github = osora("config", "validate", "warns.toml", "--format", "github")
    assert (github.returncode, github.stdout.split(",")[0]) == (0, "::warning file=warns.toml")
    (entry,) = json.loads(osora("config", "validate", "warns.toml", "--format", "json").stdout)
    assert entry["severity"] == "warning"
    both = osora("config", "validate", "warns.toml", "--set", "optim.lr=0")
    assert (both.returncode, both.stdout.splitlines()[-1]) == (1, "warns.toml: 1 problem and 1 warning")
