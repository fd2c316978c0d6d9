"""A resolved recipe: who set what, and a lock that stands alone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UsageError
from schemas.resolve import Resolved, packaged_recipes, resolve
from schemas.resolve.keys import show_key
from schemas.resolve.literals import write_value

COMPLETE = sorted(name for name in packaged_recipes() if not name.startswith("layers/"))
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**62),
        "outputs": st.text(max_size=12),
        "max_steps": st.integers(1, 9),
        "optim.lr": st.floats(1e-12, 1e3),
        "optim.ema_decay": st.floats(0.01, 0.99),
        "model.theta": st.integers(1, 10**6),
        "memory.grad_checkpoint": st.booleans(),
        "condition.t2v": st.floats(0.1, 10),
        "text.t5.from_pretrained": st.text(max_size=12),
        'buckets."480p".5': st.tuples(st.floats(0, 1), st.integers(1, 9)),
    },
)


def leaves(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    if isinstance(values, dict):
        return [leaf for name, value in values.items() for leaf in leaves(value, (*path, name))]
    return [(show_key(path), values)]


def check(resolved: Resolved, folder: Path) -> None:
    lock = folder / "lock.toml"
    lock.write_text(resolved.lock(), encoding="utf-8")
    again = resolve(lock)
    assert again.recipe == resolved.recipe
    assert again.lock() == resolved.lock()
    for key, value in leaves(resolved.tree()):
        assert resolved.history(key)[-1].value == value
        assert again.place(key).file == str(lock)


@pytest.mark.parametrize("name", COMPLETE)
def test_packaged_recipes_lock_to_themselves_and_know_their_history(name: str, tmp_path: Path) -> None:
    check(resolve(name), tmp_path)


@settings(max_examples=60, deadline=None, database=None)
@given(SETTINGS)
def test_any_settings_lock_to_themselves(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    escaped = {key: value.replace("${", "$${") if isinstance(value, str) else value for key, value in values.items()}
    resolved = resolve("stage1", sets=[f"{key}={write_value(value)}" for key, value in escaped.items()])
    check(resolved, tmp_path_factory.mktemp("lock"))


def test_a_lock_has_neither_bases_nor_references() -> None:
    text = resolve("stage1").lock()
    assert "_base_" not in text
    assert "${" not in text
    assert "_delete_" not in text


def test_history_is_oldest_first_with_a_place_each(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('_base_ = "stage1"\n\n[optim]\nlr = 1.0\n')
    resolved = resolve(tmp_path / "a.toml", sets=["optim.lr=2.0"])
    events = resolved.history("optim.lr")
    assert [event.action for event in events] == ["default", "set", "set", "set", "set"]
    assert [event.value for event in events] == [1e-4, 1e-5, 5e-5, 1.0, 2.0]
    assert [Path(event.label).name for event in events] == [
        "schema default",
        "lr_image.toml",
        "lr_stage1.toml",
        "a.toml",
        "<command line>",
    ]
    assert (events[3].place.line, events[3].place.column) == (4, 6)
    assert (events[4].place.source, events[4].place.column) == ("--set optim.lr=2.0", 16)


def test_a_forgotten_table_is_in_the_history() -> None:
    events = resolve("stage1").history('buckets."256px".1')
    assert [event.action for event in events] == ["set", "deleted", "set"]


def test_places_of_defaults_and_of_unknown_keys() -> None:
    resolved = resolve("stage1")
    assert str(resolved.place("optim.betas")) == "schema default"
    assert resolved.history("max_steps") == ()
    with pytest.raises(UsageError, match=r"has no key `optim\.lrr`\. Did you mean `optim\.lr`\?"):
        resolved.history("optim.lrr")
    with pytest.raises(UsageError, match="not a TOML key"):
        resolved.place("optim..lr")


def test_a_resolved_recipe_is_immutable_through_and_through() -> None:
    recipe = resolve("stage1").recipe
    assert hash(recipe.optim) == hash(resolve("stage1").recipe.optim)
    assert isinstance(recipe.memory.grad_ckpt_settings, tuple)
    assert all(isinstance(bucket, tuple) for lengths in recipe.buckets.values() for bucket in lengths.values())
