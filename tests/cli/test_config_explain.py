"""`osora config explain`, `diff`, `schema`, `init` and `migrate` as a user runs them."""

import json
import tomllib
from pathlib import Path

import pytest

from schemas.recipes import RECIPES
from schemas.resolve import resolve
from schemas.resolve.codes import all_codes
from tests.cli.conftest import Osora

GOOD = 'kind = "train"\n\n[buckets]\n"256px" = { 1 = [1.0, 4] }\n\n[optim]\nlr = 0.5\n'


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def test_a_key_with_its_history(osora: Osora, good: Path) -> None:
    (good.parent / "layer.toml").write_text('[optim]\n_delete_ = ["lr"]\n')
    done = osora("config", "explain", "good.toml", "optim.lr", "--layer", "layer.toml", "--set", "optim.lr=2.0")
    assert done.returncode == 0
    assert done.stdout == (
        "optim.lr = 2.0\n"
        "  Learning rate after warm-up.\n"
        "  type     number\n"
        "  limits   > 0\n"
        "  default  0.0001\n"
        "  change   changes_numerics: losses or samples come out differently\n"
        "  history  weakest layer first\n"
        "    schema default  0.0001\n"
        "    good.toml:7:6  0.5\n"
        "          7 | lr = 0.5\n"
        "            |      ^^^\n"
        "    layer.toml:2:13  deletes it, back to 0.0001\n"
        '          2 | _delete_ = ["lr"]\n'
        "            |             ^^^^\n"
        "    <command line>  2.0\n"
        "            | --set optim.lr=2.0\n"
        "            |                ^^^\n"
    )


def test_all_keys_that_differ_without_a_key(osora: Osora, good: Path) -> None:
    lines = osora("config", "explain", good.name).stdout.splitlines()
    assert lines[0] == "good.toml: 2 keys differ from the defaults of kind train"
    assert lines[2].split() == ["buckets.256px.1", "[1.0,", "4]", "not", "set", "good.toml:4:17"]
    assert lines[3].split() == ["optim.lr", "0.5", "0.0001", "good.toml:7:6"]


def test_a_key_that_is_not_set_and_one_that_there_is_not(osora: Osora, good: Path) -> None:
    done = osora("config", "explain", good.name, "max_steps")
    assert "  change   costs nothing\n  history  no layer sets it\n" in done.stdout
    unknown = osora("config", "explain", good.name, "optim.lrr")
    assert unknown.returncode == 2
    assert "has no key `optim.lrr`. Did you mean `optim.lr`?" in unknown.stderr


def test_a_code_with_both_examples(osora: Osora) -> None:
    done = osora("config", "explain", "osr101")
    assert done.returncode == 0
    assert done.stdout.startswith("OSR101  error: heads divide the width (train, sample)\n  why: ")
    assert "Wrong:\n" in done.stdout
    assert "    num_heads = 25\n" in done.stdout
    assert "Right:\n" in done.stdout
    assert "OSR404  warning: " in osora("config", "explain", "OSR404").stdout
    assert "--set 'optim.lr 1e-4'" in osora("config", "explain", "OSR013").stdout
    unknown = osora("config", "explain", "OSR109")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "there is no code OSR109. Did you mean OSR" in unknown.stderr
    assert len(all_codes()) > 50


def test_a_diff_for_people(osora: Osora, good: Path) -> None:
    (good.parent / "other.toml").write_text(GOOD.replace("0.5", "0.25") + "ema_decay = 0.9\n")
    done = osora("config", "diff", "good.toml", "other.toml", "--exit-code")
    assert done.returncode == 1
    assert done.stdout == (
        "good.toml -> other.toml: 2 differences\n"
        "[optim]\n"
        "  lr: 0.5 -> 0.25\n"
        "      good.toml:7:6 -> other.toml:7:6\n"
        "  ema_decay: not set -> 0.9\n"
        "      schema default -> other.toml:8:13\n"
        "changes_numerics: losses or samples come out differently\n"
        "  optim.lr, optim.ema_decay\n"
        "changes_memory: the memory of each GPU changes\n"
        "  optim.ema_decay\n"
    )
    same = osora("config", "diff", "good.toml", "good.toml", "--exit-code")
    assert (same.returncode, same.stdout) == (0, "good.toml -> good.toml: no difference\n")
    assert osora("config", "diff", "good.toml", "other.toml").returncode == 0


def test_a_diff_for_programs_and_for_pull_requests(osora: Osora, good: Path) -> None:
    (good.parent / "other.toml").write_text(GOOD + 'schedule = "constant"\nwarmup_steps = 5\n')
    report = json.loads(osora("config", "diff", "good.toml", "other.toml", "--format", "json").stdout)
    (entry,) = report["differences"]
    assert (entry["key"], entry["change"], entry["before"], entry["after"]) == ("optim.warmup_steps", "changed", 0, 5)
    assert entry["after_place"] == {"file": "other.toml", "line": 9, "column": 16}
    assert report["consequences"] == {"changes_numerics": ["optim.warmup_steps"]}
    text = osora("config", "diff", "good.toml", "other.toml", "--format", "markdown").stdout
    assert "| `optim.warmup_steps` | `0` | `5` | other.toml:9:16 | changes_numerics |\n" in text
    raw = json.loads(osora("config", "diff", "good.toml", "other.toml", "--raw", "--format", "json").stdout)
    assert [entry["key"] for entry in raw["differences"]] == ["optim.schedule", "optim.warmup_steps"]


def test_options_of_a_diff_apply_to_both_and_not_to_files_as_they_are(osora: Osora, good: Path) -> None:
    (good.parent / "other.toml").write_text(GOOD.replace("0.5", "0.25"))
    done = osora("config", "diff", "good.toml", "other.toml", "--set", "optim.lr=1.0", "--exit-code")
    assert done.returncode == 0
    assert osora("config", "diff", "good.toml", "other.toml", "--raw", "--set", "optim.lr=1.0").returncode == 2


def test_schemas_are_printed_and_written(osora: Osora, tmp_path: Path) -> None:
    assert json.loads(osora("config", "schema", "train").stdout)["title"] == "osora train"
    assert json.loads(osora("config", "schema").stdout)["title"] == "osora recipe"
    assert osora("config", "schema", "trian").returncode == 2
    assert osora("config", "schema", "--out", "here").returncode == 0
    assert len(list((tmp_path / "here").glob("*.schema.json"))) == len(RECIPES) + 1


@pytest.mark.parametrize("kind", RECIPES)
def test_a_starter_resolves_and_shows_every_default(osora: Osora, kind: str, tmp_path: Path) -> None:
    done = osora("config", "init", kind, "--out", "new/mine.toml")
    assert (done.returncode, done.stdout) == (0, "wrote new/mine.toml\n")
    path = tmp_path / "new/mine.toml"
    resolved = resolve(path)
    assert (resolved.recipe.kind, resolved.warnings) == (kind, ())
    text = path.read_text()
    assert text.startswith("#:schema file:///")
    assert '# dtype = "bf16"\n' in text
    again = osora("config", "init", kind, "--out", "new/mine.toml")
    assert (again.returncode, path.read_text()) == (2, text)


def test_the_lines_of_a_starter_can_be_taken_in(osora: Osora, tmp_path: Path) -> None:
    text = osora("config", "init", "train", "--schema", "x.json").stdout
    assert text.startswith("#:schema x.json\n")
    (tmp_path / "x.toml").write_text(
        text.replace("# seed = 42", "seed = 7").replace("# [lora]", "[lora]").replace("# r = 16", "r = 3")
    )
    recipe = resolve(tmp_path / "x.toml").recipe
    assert (recipe.seed, recipe.lora.r) == (7, 3)
    assert osora("config", "init", "trian").returncode == 2


def test_migrate_prints_or_rewrites(osora: Osora, tmp_path: Path) -> None:
    old = '# mine\n\nkind = "train"\nckpt_every = 7  # often\n'
    (tmp_path / "old.toml").write_text(old)
    printed = osora("config", "migrate", "old.toml")
    assert printed.returncode == 0
    assert tomllib.loads(printed.stdout)["checkpoint"] == {"every": 7}
    assert printed.stderr == "ckpt_every -> checkpoint.every\n"
    assert (tmp_path / "old.toml").read_text() == old
    written = osora("config", "migrate", "old.toml", "--write")
    assert written.stdout == "ckpt_every -> checkpoint.every\nold.toml: rewritten\n"
    assert "every = 7  # often\n" in (tmp_path / "old.toml").read_text()
    assert osora("config", "migrate", "old.toml", "--write").stdout == "old.toml: up to date\n"


def test_migrate_leaves_what_a_person_has_to_decide(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text("lr = 1.0\n[optim]\nlr = 2.0\n")
    done = osora("config", "migrate", "old.toml")
    assert done.returncode == 1
    assert "old.toml:1:1  OSR001 `lr` and `optim.lr` are both given. Keep one value, as `optim.lr`." in done.stderr
