"""The corpus of wrong recipes: one mistake each, its diagnostic compared in full (code, places, carets, help)."""

from pathlib import Path

import pytest

from schemas.resolve import RecipeError, resolve
from tests.cli.conftest import Osora

CORPUS = Path(__file__).parent / "bad_recipes"
NAMES = sorted(path.stem for path in CORPUS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    with pytest.raises(RecipeError) as caught:
        resolve(f"{name}.toml")
    assert str(caught.value) + "\n" == (CORPUS / f"{name}.txt").read_text()
    assert len(caught.value.diagnostics) == 1


def test_the_corpus_is_complete() -> None:
    assert len(NAMES) >= 60
    assert sorted(path.stem for path in CORPUS.glob("*.txt")) == NAMES


def test_the_program_prints_the_same_for_all_of_them_at_once(osora: Osora) -> None:
    done = osora("config", "validate", *(f"{name}.toml" for name in NAMES), cwd=CORPUS)
    expected = "".join((CORPUS / f"{name}.txt").read_text() + f"{name}.toml: 1 problem\n" for name in NAMES)
    assert (done.returncode, done.stdout, done.stderr) == (1, expected, "")
