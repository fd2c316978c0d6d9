"""Layers: what wins, what is forgotten, what is added, and who is remembered."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.resolve import RecipeError, Unsetting, resolve
from schemas.resolve.merge import Merger
from schemas.resolve.nodes import Table, is_set, leaves, plain
from schemas.resolve.sources import LabelSource

BASE = """
kind = "train"
max_steps = 100
[optim]
lr = 1e-3
warmup_steps = 5
ema_decay = 0.9
[buckets."256px"]
1 = [1.0, 8]
33 = [0.5, 2]
[checkpoint]
every = 50
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(BASE)
    return tmp_path


def write(folder: Path, text: str, name: str = "recipe.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def codes(error: RecipeError) -> list[str]:
    return [diagnostic.code for diagnostic in error.diagnostics]


def test_tables_merge_key_by_key_and_lists_replace(folder: Path) -> None:
    text = '_base_ = "base.toml"\n[optim]\nlr = 2e-3\nbetas = [0.8, 0.9]\n[buckets."256px"]\n33 = [1.0, 4]\n'
    recipe = resolve(write(folder, text)).recipe
    assert (recipe.optim.lr, recipe.optim.warmup_steps, recipe.optim.betas) == (2e-3, 5, (0.8, 0.9))
    assert recipe.buckets == {"256px": {1: (1.0, 8), 33: (1.0, 4)}}


def test_bases_go_left_to_right_and_depth_first(folder: Path) -> None:
    write(folder, '_base_ = "base.toml"\nseed = 1\nepochs = 1\n[optim]\nlr = 1.0\n', "left.toml")
    write(folder, "seed = 2\nepochs = 2\n", "right.toml")
    resolved = resolve(write(folder, '_base_ = ["left.toml", "right.toml"]\nseed = 3\n'))
    assert (resolved.recipe.seed, resolved.recipe.epochs, resolved.recipe.optim.lr) == (3, 2, 1.0)
    assert [Path(name).stem for name in resolved.layers] == ["base", "left", "right", "recipe"]


def test_layer_files_then_options_in_their_order_then_injected(folder: Path) -> None:
    layer = write(folder, "seed = 2\n[optim]\nlr = 0.5\n", "layer.toml")
    arguments: dict[str, Any] = {"layers": [layer], "sets": ["seed=3", "optim.lr=0.25", "optim.lr=0.125"]}
    resolved = resolve(folder / "base.toml", **arguments, injected={"<checkpoint>": {"epochs": 7}})
    assert (resolved.recipe.seed, resolved.recipe.optim.lr, resolved.recipe.epochs) == (3, 0.125, 7)
    assert str(resolved.place("epochs")) == "<checkpoint>"


def test_bases_are_files_or_packaged_recipes(folder: Path) -> None:
    assert resolve(write(folder, '_base_ = "stage1"\nseed = 7\n')).recipe.optim.lr == 5e-5
    assert resolve("stage1").recipe == resolve("stage1.toml").recipe


def test_delete_true_forgets_the_table_and_applies_the_rest(folder: Path) -> None:
    text = '_base_ = "base.toml"\n[buckets]\n_delete_ = true\n"480p" = { 5 = [1.0, 1] }\n[optim]\n_delete_ = true\n'
    recipe = resolve(write(folder, text)).recipe
    assert recipe.buckets == {"480p": {5: (1.0, 1)}}
    assert (recipe.optim.lr, recipe.optim.ema_decay) == (1e-4, None)


def test_deleted_keys_fall_back_to_the_default(folder: Path) -> None:
    text = '_base_ = "base.toml"\n[optim]\n_delete_ = ["lr", "ema_decay"]\n'
    resolved = resolve(write(folder, text))
    assert (resolved.recipe.optim.lr, resolved.recipe.optim.ema_decay) == (1e-4, None)
    assert [event.action for event in resolved.history("optim.lr")] == ["default", "set", "deleted"]


def test_a_key_may_be_deleted_and_set_again(folder: Path) -> None:
    text = '_base_ = "base.toml"\n[optim]\n_delete_ = ["lr"]\nlr = 0.5\n'
    resolved = resolve(write(folder, text))
    assert [event.value for event in resolved.history("optim.lr")] == [1e-4, 1e-3, 1e-4, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[optim]\n_delete_ = ["lrr"]', "cannot delete `optim.lrr`: it is not there."),
        ('[optim]\n_delete_ = ["betas"]', "cannot delete `optim.betas`: it is not there."),
        ('[dataset]\n_delete_ = ["data_path"]', "cannot delete `dataset.data_path`: it is not there."),
    ],
)
def test_deleting_what_is_not_there_is_an_error_with_a_place(folder: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(write(folder, f'_base_ = "base.toml"\n{text}\n'))
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("OSR020", message)
    assert (diagnostic.place.line, diagnostic.place.column) == (3, 13)


def test_a_second_deletion_points_at_the_first(folder: Path) -> None:
    first = write(folder, '_base_ = "base.toml"\n[optim]\n_delete_ = ["lr"]\n', "first.toml")
    with pytest.raises(RecipeError) as caught:
        resolve(first, unsets=["optim.lr"])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.place.file == "<command line>"
    assert diagnostic.second is not None
    assert (diagnostic.second.file, diagnostic.second.line) == (first, 3)


def test_append_and_prepend_add_to_inherited_lists_and_to_defaults(folder: Path) -> None:
    merger = Merger(lambda path: [9] if path == ("other",) else None)
    tree = merger.apply(Table(), LabelSource("a", {"names": [1]}))
    tree = merger.apply(tree, LabelSource("b", {"_append_": {"names": [2], "other": [8]}, "_prepend_": {"names": [0]}}))
    assert plain(tree) == {"names": [0, 1, 2], "other": [9, 8]}
    actions = [(event.action, event.written, event.value) for event in tree.items["names"].history]
    assert actions == [("set", [1], [1]), ("prepended", [0], [0, 1]), ("appended", [2], [0, 1, 2])]
    assert merger.problems == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[optim]\n_append_.lr = [1]", "OSR021"),
        ("[optim]\n_append_.names = [1]", "OSR021"),
        ("[optim]\n_append_.betas = 1", "OSR022"),
        ("[optim]\n_append_ = [1]", "OSR022"),
        ("[optim]\n_delete_ = 3", "OSR022"),
        ("[optim]\n_remove_ = ['lr']", "OSR022"),
        ("[optim]\n_base_ = 'base.toml'", "OSR022"),
    ],
)
def test_directives_that_cannot_be_followed(folder: Path, text: str, code: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(write(folder, f'_base_ = "base.toml"\n{text}\n'))
    assert codes(caught.value) == [code]


def test_set_reads_toml_and_bare_words_as_text(folder: Path) -> None:
    sets = [
        "dtype=fp32",
        "optim.betas=[0.5, 0.6]",
        "outputs='a b'",
        'buckets."256px".33=[1.0, 4]',
        "memory={grad_checkpoint=true}",
    ]
    recipe = resolve(folder / "base.toml", sets=[*sets, "dataset.data_path=2024-01-01"]).recipe
    assert (recipe.dtype, recipe.optim.betas, recipe.outputs) == ("fp32", (0.5, 0.6), "a b")
    assert recipe.buckets["256px"] == {1: (1.0, 8), 33: (1.0, 4)}
    assert (recipe.memory.grad_checkpoint, recipe.dataset.data_path) == (True, "2024-01-01")


@pytest.mark.parametrize("option", ["optim.lr", "=3", "a..b=1", "x=[1", 'x="', "a.=1", "a b=1"])
def test_an_option_that_cannot_be_read(folder: Path, option: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(folder / "base.toml", sets=[option])
    assert codes(caught.value) == ["OSR013"]


def test_unsets_go_before_sets_unless_the_order_is_given(folder: Path) -> None:
    base = folder / "base.toml"
    assert resolve(base, sets=["optim.lr=0.5"], unsets=["optim"]).recipe.optim.lr == 0.5
    assert resolve(base, sets=["optim.lr=0.5", Unsetting("optim.lr")], unsets=["optim.lr"]).recipe.optim.lr == 1e-4


def test_a_table_in_part_keeps_the_defaults_of_its_other_keys(folder: Path) -> None:
    recipe = resolve(folder / "base.toml", sets=["text.t5.max_length=300"]).recipe
    assert recipe.kind == "train"
    assert (recipe.text.t5.max_length, recipe.text.t5.from_pretrained) == (300, "google/t5-v1_1-xxl")


SCALARS = st.one_of(
    st.booleans(), st.integers(-5, 5), st.text("ab", max_size=2), st.lists(st.integers(0, 3), max_size=2)
)
# A name says whether it holds a table, as a schema would; a key that changes sides is an error anyway.
LAYERS = st.recursive(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), SCALARS, max_size=3),
    lambda inner: st.builds(
        lambda values, tables: {**values, **tables},
        st.dictionaries(st.sampled_from(["a", "b", "c"]), SCALARS, max_size=2),
        st.dictionaries(st.sampled_from(["t", "u"]), inner, max_size=2),
    ),
    max_leaves=4,
)


def merged(*layers: dict[str, Any]) -> Table:
    merger, tree = Merger(), Table()
    for index, values in enumerate(layers):
        tree = merger.apply(tree, LabelSource(str(index), values))
    assert merger.problems == []
    return tree


@settings(max_examples=200, deadline=None, database=None)
@given(LAYERS, LAYERS, LAYERS)
def test_merging_is_associative_over_layers(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    whole = plain(merged(a, b, c))
    assert plain(merged(plain(merged(a, b)), c)) == whole
    assert plain(merged(a, plain(merged(b, c)))) == whole


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(LAYERS, max_size=4), st.booleans())
def test_the_history_of_every_leaf_ends_with_its_value(layers: list[dict[str, Any]], delete: bool) -> None:
    tree = merged(*layers)
    if delete and tree.items:
        name = next(iter(tree.items))
        tree = merged(*layers, {"_delete_": [name]})
        assert not is_set(tree.items[name])
    for path, leaf in leaves(tree):
        assert leaf.history[-1].value == leaf.value
        assert [int(event.label) for event in leaf.history] == sorted(int(event.label) for event in leaf.history)
        assert all(event.path[: len(path)] == path or event.action == "deleted" for event in leaf.history)


def test_applying_a_layer_leaves_the_weaker_tree_unchanged() -> None:
    before = merged({"t": {"a": 1, "b": 2}})
    after = Merger().apply(before, LabelSource("x", {"t": {"_delete_": ["a"], "b": 3}}))
    assert plain(before) == {"t": {"a": 1, "b": 2}}
    assert plain(after) == {"t": {"b": 3}}
    with pytest.raises(TypeError):
        before.items["t"] = before  # type: ignore[index]
