"""What a key means, which keys differ from their defaults, and what two recipes do differently."""

from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.recipes import RECIPES
from schemas.resolve import UNSET, resolve
from schemas.resolve.diff import consequences, differences, raw_side, resolved_side
from schemas.resolve.explain import changed_keys, explain_key, flat
from schemas.resolve.fields import member_for, tables_of
from schemas.resolve.meaning import meaning_of
from schemas.resolve.sources import read_file


@pytest.mark.parametrize(
    ("key", "type_", "limits"),
    [
        ("optim.lr", "number", "> 0"),
        ("optim.betas", "[number, number]", ""),
        ("optim.schedule", 'one of "constant", "cosine", "linear"', ""),
        ("optim", "table", ""),
        ("max_steps", "whole number", ">= 1"),
        ("memory.grad_checkpoint", "true or false", ""),
        ("dataset.data_path", "text", ""),
        ("lora.target_modules", "list of text", ""),
        ("ae.type", '"hunyuan_vae"', ""),
        (
            'buckets."256px".33',
            "[number >= 0 and <= 1 or [number >= 0 and <= 1, number >= 0 and <= 1], whole number >= 1]",
            "",
        ),
    ],
)
def test_a_keys_type_and_limits_in_words(key: str, type_: str, limits: str) -> None:
    meaning = explain_key(resolve("stage1", sets=["lora.r=2"]), key).meaning
    assert (meaning.type, meaning.limits) == (type_, limits)
    assert meaning.description


@pytest.mark.parametrize("path", [("optim", "lrr"), ("nothing",), ("optim", "lr", "x"), ("ae", "shape", "x")])
def test_what_is_no_key_has_no_meaning(path: tuple[str, ...]) -> None:
    assert meaning_of("train", path, {}) is None


def test_every_field_has_a_description_and_a_type() -> None:
    def walk(kind: str, model: type, path: tuple[str, ...], values: dict[str, object]) -> None:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            here = (*path, name)
            meaning = meaning_of(kind, here, values)
            assert meaning is not None, here
            assert meaning.description, here
            assert meaning.type, here
            members = tables_of(field.annotation)
            if members:
                walk(kind, member_for(members, None, field.default), here, values)

    for kind, model in RECIPES.items():
        walk(kind, model, (), {})


def test_an_explanation_has_value_default_costs_and_history() -> None:
    found = explain_key(resolve("stage1", sets=["optim.lr=0.5"]), "optim.lr")
    assert (found.key, found.value, found.default) == ("optim.lr", 0.5, 1e-4)
    assert found.meaning.costs == ("changes_numerics",)
    assert found.history[-1].label == "<command line>"
    unset = explain_key(resolve("stage1"), "max_steps")
    assert (unset.value, unset.default, unset.history) == (UNSET, UNSET, ())
    with pytest.raises(UsageError, match="has no key"):
        explain_key(resolve("stage1"), "optim.lrr")


def test_the_keys_that_differ_from_their_defaults(tmp_path: Path) -> None:
    text = 'kind = "train"\nseed = 42\n[buckets."64px"]\n1 = [1.0, 1]\n[optim]\nlr = 0.5\n'
    (tmp_path / "x.toml").write_text(text)
    changed = changed_keys(resolve(tmp_path / "x.toml"))
    assert [(each.key, each.value, each.default) for each in changed] == [
        ("buckets.64px.1", [1.0, 1], UNSET),
        ("optim.lr", 0.5, 1e-4),
    ]
    assert changed[1].place.line == 6


def sides(folder: Path, before: str, after: str, raw: bool = False):  # type: ignore[no-untyped-def]
    head = 'kind = "train"\n[buckets."64px"]\n1 = [1.0, 1]\n'
    for name, text in (("a", before), ("b", after)):
        (folder / f"{name}.toml").write_text(head + text)
    names = [str(folder / "a.toml"), str(folder / "b.toml")]
    return [raw_side(read_file(name)) if raw else resolved_side(resolve(name)) for name in names]


def test_a_diff_is_of_values_with_places_and_costs(tmp_path: Path) -> None:
    before = "[optim]\nlr = 1e-4\nwarmup_steps = 5\n[model]\ndepth = 3\n"
    after = "[model]\ndepth = 4\n[optim]\nwarmup_steps = 7\nema_decay = 0.9\n"
    found = differences(*sides(tmp_path, before, after))
    assert [(each.key, each.change, each.before, each.after) for each in found] == [
        ("optim.warmup_steps", "changed", 5, 7),
        ("optim.ema_decay", "added", UNSET, 0.9),
        ("model.depth", "changed", 3, 4),
    ]
    assert (found[0].before_place.line, found[0].after_place.line) == (6, 7)
    assert str(found[1].before_place) == "schema default"
    assert consequences(found) == {
        "changes_numerics": ["optim.warmup_steps", "optim.ema_decay"],
        "changes_memory": ["optim.ema_decay", "model.depth"],
        "breaks_resume": ["model.depth"],
    }


def test_a_diff_of_equal_recipes_is_empty_however_they_are_written(tmp_path: Path) -> None:
    assert differences(*sides(tmp_path, "", "[optim]\nlr = 1e-4\n")) == []


def test_a_raw_diff_is_of_what_the_files_say(tmp_path: Path) -> None:
    found = differences(*sides(tmp_path, "[optim]\nlr = 1\n", "[optim]\nlr = 1.0\n_delete_ = true\n", raw=True))
    assert [(each.key, each.change) for each in found] == [("optim.lr", "changed"), ("optim._delete_", "added")]
    assert found[0].costs == ("changes_numerics",)
    assert found[1].before_place.file.endswith("a.toml")


def test_flat_keeps_empty_tables() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": []}) == {("a", "b"): 1, ("a", "c"): {}, ("d",): []}
