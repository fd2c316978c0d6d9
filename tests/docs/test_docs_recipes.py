"""The pages about recipes hold: every example file, every command with its output, the table of codes."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from opensora_cli.commands.config import ConfigCommands
from opensora_cli.main import COMMANDS
from schemas.resolve.rules_page import rules_page
from tests.cli.conftest import REPOSITORY
from tests.docs.console import BLOCK, agrees, run, run_page

DOCS = REPOSITORY / "docs"
PAGES = ["recipes.md", "ci.md"]
README = (REPOSITORY / "README.md").read_text()


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


def test_the_readmes_recipe_and_its_config_commands_work(tmp_path: Path) -> None:
    (recipe,) = (block["body"] for block in BLOCK.finditer(README) if block["info"] == "toml")
    (tmp_path / "mine.toml").write_text(recipe)
    lines = [line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("    osora config")]
    assert len(lines) == 3
    for line in lines:
        assert "(exit code" not in run(line, tmp_path), line


def test_the_readme_names_every_command() -> None:
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `osora "))
    assert [name for name in COMMANDS if f"`osora {name}" not in table] == []
    shown = " ".join(line for line in table.splitlines() if "osora config" in line)
    assert [name for name in ConfigCommands.table if name not in shown] == []


def test_every_file_the_readme_points_at_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
