"""Lists of several layers: replace, append, append what is new, or bring tables of one name together."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from schemas.base import Schema, cost, lists
from schemas.recipes import RECIPES, TrainRecipe
from schemas.resolve import resolve
from schemas.resolve.fields import list_policy
from schemas.resolve.merge import Merger, combined
from schemas.resolve.nodes import Table, plain
from schemas.resolve.sources import LabelSource


class Tags(Schema):
    """A table whose lists add up."""

    names: tuple[str, ...] = Field(
        ("default",), description="Names.", json_schema_extra=cost("changes_numerics") | lists("unique")
    )
    plain: tuple[str, ...] = Field((), description="Names that replace.")


class TaggedRecipe(TrainRecipe):
    """A kind of recipe with such a table."""

    tags: Tags = Field(Tags(), description="Tags.")


@pytest.fixture
def tagged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(RECIPES, "train", TaggedRecipe)
    yield


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("append", [{"name": "a", "x": 1}, 3, {"name": "a", "x": 2, "y": 5}, {"name": "b"}, 3, 3]),
        ("unique", [{"name": "a", "x": 1}, 3, {"name": "a", "x": 2, "y": 5}, {"name": "b"}]),
        ("by name", [{"name": "a", "x": 2, "y": 5}, 3, {"name": "b"}, 3, 3]),
    ],
)
def test_each_policy(policy: str, expected: list[Any]) -> None:
    below = [{"name": "a", "x": 1}, 3]
    above = [{"name": "a", "x": 2, "y": 5}, {"name": "b"}, 3, 3]
    assert combined(below, above, policy) == expected
    assert below == [{"name": "a", "x": 1}, 3]


def test_a_policy_is_one_of_three() -> None:
    with pytest.raises(AssertionError, match="is no list policy"):
        lists("extend")


@pytest.mark.usefixtures("tagged")
def test_the_resolver_asks_the_field(tmp_path: Any) -> None:
    (tmp_path / "a.toml").write_text('_base_ = "stage1"\n[tags]\nnames = ["x", "y"]\nplain = ["x"]\n')
    (tmp_path / "b.toml").write_text('_base_ = "a.toml"\n[tags]\nnames = ["y", "z"]\nplain = ["z"]\n')
    resolved = resolve(tmp_path / "b.toml")
    tree = resolved.tree()["tags"]
    assert (tree["names"], tree["plain"]) == (["x", "y", "z"], ["z"])
    events = resolved.history("tags.names")
    assert [event.action for event in events] == ["default", "set", "merged"]
    assert (events[-1].written, events[-1].value) == (["y", "z"], ["x", "y", "z"])
    assert (events[-1].place.line, events[-1].place.column) == (3, 9)
    (tmp_path / "lock.toml").write_text(resolved.lock())
    assert resolve(tmp_path / "lock.toml").recipe == resolved.recipe


@pytest.mark.usefixtures("tagged")
def test_deleting_first_replaces_in_spite_of_a_policy(tmp_path: Any) -> None:
    (tmp_path / "a.toml").write_text('_base_ = "stage1"\n[tags]\nnames = ["x"]\n')
    (tmp_path / "b.toml").write_text('_base_ = "a.toml"\n[tags]\n_delete_ = ["names"]\nnames = ["z"]\n')
    assert resolve(tmp_path / "b.toml").tree()["tags"]["names"] == ["z"]


def test_no_field_of_today_has_one_by_accident() -> None:
    for kind in RECIPES:
        assert list_policy(kind, ("optim", "betas"), {}) is None


NAMED = st.fixed_dictionaries(
    {"name": st.sampled_from("abc")}, optional={"x": st.integers(0, 2), "y": st.integers(0, 2)}
)
LISTS = st.lists(st.one_of(NAMED, st.integers(0, 3)), max_size=4)


@pytest.mark.parametrize("policy", ["append", "unique", "by name"])
@settings(max_examples=100, deadline=None, database=None)
@given(LISTS, LISTS, LISTS)
def test_every_policy_is_associative(policy: str, a: list[Any], b: list[Any], c: list[Any]) -> None:
    def merged(*layers: list[Any]) -> list[Any]:
        merger, tree = Merger(policy=lambda path: policy), Table()
        for index, layer in enumerate(layers):
            tree = merger.apply(tree, LabelSource(str(index), {"items": layer}))
        value = plain(tree)["items"]
        assert isinstance(value, list)
        return value

    first = merged([], a)  # a layer's own list is brought into shape once it lies on another
    assert merged(merged(first, b), c) == merged(first, b, c)
    assert merged(first, merged(merged([], b), c)) == merged(first, b, c)
