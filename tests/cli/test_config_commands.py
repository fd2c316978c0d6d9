"""`osora config` and `osora recipes` as a user runs them: exit codes, texts, formats, and what is never imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opensora_cli.main import COMMANDS
from schemas.resolve import packaged_recipes, resolve
from tests.cli.conftest import REPOSITORY, Osora

GOOD = 'kind = "train"\n\n[buckets]\n"256px" = { 1 = [1.0, 4] }\n\n[optim]\nlr = 0.5\n'


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def test_every_packaged_recipe_is_fine(osora: Osora) -> None:
    names = [name for name in packaged_recipes() if not name.startswith("layers/")]
    done = osora("config", "validate", *names)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{name}: ok ({resolve(name).recipe.kind})" for name in names]


def test_all_problems_of_all_files_and_an_ok_line_for_the_rest(osora: Osora, good: Path) -> None:
    (good.parent / "bad.toml").write_text(GOOD + "lrr = 1\neps = -1.0\n")
    done = osora("config", "validate", "good.toml", "bad.toml", "none.toml")
    assert done.returncode == 1
    assert done.stdout == (
        "good.toml: ok (train)\n"
        "bad.toml:8:1  OSR001 unknown key `optim.lrr`. Did you mean `lr`?\n"
        "      8 | lrr = 1\n"
        "        | ^^^\n"
        "bad.toml:9:7  OSR003 `optim.eps = -1.0`: must be more than 0.0. "
        "optim.eps: Added to the root of the second moment.\n"
        "      9 | eps = -1.0\n"
        "        |       ^^^^\n"
        "bad.toml: 2 problems\n"
        "none.toml  OSR011 there is no recipe `none.toml`: neither a file nor a packaged recipe.\n"
        "  = help: `osora recipes list` names the packaged ones.\n"
        "none.toml: 1 problem\n"
    )


def test_json_is_one_list_with_both_places(osora: Osora, good: Path) -> None:
    arguments = ["--format", "json", "--set", "max_steps=5", "--set", "optim.warmup_steps=6"]
    arguments += ["--set", "checkpoint.every=5", "--set", "logging.log_every=5"]
    done = osora("config", "validate", "good.toml", *arguments)
    (problem,) = json.loads(done.stdout)
    assert done.returncode == 1
    assert (problem["recipe"], problem["code"]) == ("good.toml", "OSR401")
    assert problem["place"] == {"file": "<command line>", "line": None, "column": 26}
    assert problem["second_place"]["note"] == "`max_steps` comes from"
    fine = osora("config", "validate", "good.toml", "--format", "json")
    assert (fine.returncode, json.loads(fine.stdout)) == (0, [])


def test_a_recipe_that_this_machine_cannot_run_is_found_with_the_place(osora: Osora) -> None:
    options = ["--hardware", "here", "--format", "json", "--set", "optim.accumulation_steps=2"]
    sizes = 'buckets={_delete_=true, "768px"={129=[1.0, 4096]}}'
    done = osora("config", "validate", "stage1", *options, "--set", sizes)
    assert done.returncode == 1, done.stderr
    found = {each["code"]: each for each in json.loads(done.stdout)}
    assert "a batch of 4096 x 768px, 129 frames needs about" in found["OSR609"]["message"]
    assert found["OSR609"]["place"]["file"] == "<command line>"


def test_github_annotations_escape_what_ends_a_command(osora: Osora, good: Path) -> None:
    (good.parent / "a,b.toml").write_text(GOOD + "lrr = 1\n")
    done = osora("config", "validate", "a,b.toml", "--format", "github")
    assert done.returncode == 1
    assert done.stdout == (
        "::error file=a%2Cb.toml,line=8,col=1,title=OSR001::unknown key `optim.lrr`.%0ADid you mean `lr`?\n"
    )
    option = osora("config", "validate", "good.toml", "--format", "github", "--set", "optim.lr=fast")
    assert option.stdout.startswith('::error file=good.toml,title=OSR002::`optim.lr = "fast"`: must be a number.')


def test_show_prints_a_recipe_that_validates_to_the_same(osora: Osora, good: Path) -> None:
    done = osora("config", "show", "good.toml", "--set", "seed=7")
    assert done.returncode == 0
    (good.parent / "shown.toml").write_text(done.stdout)
    assert resolve(good.parent / "shown.toml").recipe == resolve(good, sets=["seed=7"]).recipe
    values = json.loads(osora("config", "show", "good.toml", "--format", "json").stdout)
    assert values == resolve(good).tree()


def test_show_provenance_says_where_each_value_comes_from(osora: Osora, good: Path) -> None:
    done = osora("config", "show", "good.toml", "--provenance", "--set", "seed=7")
    lines = done.stdout.splitlines()
    assert "lr = 0.5  # good.toml:7:6" in lines
    assert "seed = 7  # <command line>" in lines
    assert "weight_decay = 0.0  # schema default" in lines
    (good.parent / "shown.toml").write_text(done.stdout)
    assert resolve(good.parent / "shown.toml").recipe == resolve(good, sets=["seed=7"]).recipe
    report = json.loads(osora("config", "show", "good.toml", "--provenance", "--format", "json").stdout)
    assert [event["value"] for event in report["provenance"]["optim.lr"]] == [1e-4, 0.5]
    assert report["provenance"]["optim.lr"][1]["line"] == 7


def test_show_of_a_bad_recipe_goes_to_stderr(osora: Osora, good: Path) -> None:
    done = osora("config", "show", "good.toml", "--set", "optim.lr=fast")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'OSR002 `optim.lr = "fast"`: must be a number.' in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "lr"),
    [
        (["--set", "optim.lr=0.25", "--unset", "optim.lr"], 1e-4),
        (["--unset", "optim.lr", "--set", "optim.lr=0.25"], 0.25),
        (["--set=optim.lr=0.25", "--unset=optim.lr", "--set", "optim.lr=0.125"], 0.125),
        (["--unset", "optim.lr"], 1e-4),
        (["--layer", "layer.toml"], 2.0),
        (["--layer", "layer.toml", "--set", "optim.lr=3.0"], 3.0),
    ],
)
def test_options_apply_in_the_order_given(osora: Osora, good: Path, arguments: list[str], lr: float) -> None:
    (good.parent / "layer.toml").write_text("[optim]\nlr = 2.0\n")
    done = osora("config", "show", "good.toml", "--format", "json", *arguments)
    assert json.loads(done.stdout)["optim"]["lr"] == lr, done.stderr


def test_wrong_usage_is_exit_code_2(osora: Osora) -> None:
    assert osora("config", "validate").returncode == 2
    unknown = osora("confg")
    assert unknown.returncode == 2
    assert "config" in unknown.stderr
    assert osora("config", "validate", "stage1", "--format", "xml").returncode == 2


def test_every_command_has_help(osora: Osora) -> None:
    listed = osora("--help").stdout
    for name in COMMANDS:
        assert f" {name} " in listed
        assert osora(name, "--help").returncode == 0


def test_a_recipe_of_another_kind_names_the_right_command(osora: Osora) -> None:
    done = osora("train", "sample/256px")
    assert done.returncode == 1
    assert 'this recipe is of kind "sample"; `osora train` takes kind "train".' in done.stderr
    assert "Run `osora sample " in done.stderr


def test_bytes_that_are_no_text_on_the_command_line(osora: Osora, good: Path) -> None:
    done = osora("config", "validate", "good.toml", "--set", os.fsdecode(b"outputs=\xff"))
    assert done.returncode == 0
    assert osora("config", "validate", os.fsdecode(b"\xff.toml")).returncode == 1


def test_recipes_list_show_and_copy(osora: Osora, tmp_path: Path) -> None:
    listed = osora("recipes", "list").stdout
    assert "stage1" in listed
    assert "Text to video at 256px" in listed
    assert osora("recipes", "show", "stage1").stdout == packaged_recipes()["stage1"].read_text()
    assert osora("recipes", "copy", "tiny/train", "own/mine.toml").returncode == 0
    assert resolve(tmp_path / "own/mine.toml").recipe == resolve("tiny/train").recipe
    again = osora("recipes", "copy", "tiny/train", "own/mine.toml")
    assert (again.returncode, again.stderr) == (2, "own/mine.toml exists. Give another name, or --overwrite.\n")
    assert osora("recipes", "copy", "tiny/train", "own/mine.toml", "--overwrite").returncode == 0
    assert osora("recipes", "show", "stage11").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["config", "--help"],
        ["train", "--help"],
        ["config", "validate", "stage1"],
        ["recipes", "list"],
        ["config", "explain", "stage1"],
        ["config", "explain", "OSR101"],
        ["config", "diff", "stage1", "stage2"],
        ["config", "schema"],
        ["config", "migrate", "stage1"],
        ["config", "init", "train"],
        ["config", "validate", "stage1", "--format", "sarif"],
    ],
)
def test_torch_is_never_imported(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['osora', *{arguments!r}]\n"
        "from opensora_cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'numpy', 'transformers', 'pandas', 'av'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else stop.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_extra_is_one_line_and_exit_code_2() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['osora', 'train', 'stage1']\n"
        "import importlib.util as util\n"
        "import opensora_cli.extras as extras\n"
        "found = util.find_spec\n"
        "extras.find_spec = lambda name: None if name == 'torch' else found(name)\n"
        "from opensora_cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "osora train needs torch: pip install 'osora[run]'\n")
