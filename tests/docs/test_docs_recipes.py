"""The pages about recipes hold: every example file, every command with its output, the table of codes."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from schemas.resolve.rules_page import rules_page
from tests.cli.conftest import REPOSITORY
from tests.docs.console import BLOCK, agrees, run_page

DOCS = REPOSITORY / "docs"
PAGES = ["recipes.md", "ci.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_prints_what_it_shows(page: str, tmp_path: Path) -> None:
    done = run_page((DOCS / page).read_text(), tmp_path)
    assert done
    wrong = [command for command in done if not agrees(command.shown, command.printed)]
    assert not wrong, f"$ {wrong[0].line}\n{wrong[0].printed}"


@pytest.mark.parametrize("page", PAGES)
def test_every_toml_block_is_toml(page: str) -> None:
    for block in BLOCK.finditer((DOCS / page).read_text()):
        if block["info"].startswith("toml"):
            tomllib.loads(block["body"])


def test_the_table_of_codes_is_up_to_date() -> None:
    assert (DOCS / "rules.md").read_text() == rules_page(), "run `python -m schemas.resolve.rules_page > docs/rules.md`"


def test_an_output_with_dots_agrees_with_any_lines_between() -> None:
    assert agrees("a\n...\nz\n", "a\nb\nc\nz\n")
    assert agrees("...\n", "")
    assert not agrees("a\n...\nz\n", "a\nb\n")


def test_the_hook_and_the_action_run_commands_that_there_are() -> None:
    (hook,) = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"].startswith("osora config validate")
    assert re.search(hook["files"], "recipes/mine.toml")
    assert not re.search(hook["files"], "recipes/layers/mine.toml")
    action = yaml.safe_load((REPOSITORY / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    steps = " ".join(step.get("run", "") for step in action["runs"]["steps"])
    assert "osora config validate --format github" in steps
    for name in re.findall(r"inputs\.([a-z-]+)", str(action["runs"])):
        assert name in action["inputs"]
