"""References between values, to the environment and to the recipe's folder."""

from pathlib import Path

import pytest

from schemas.resolve import RecipeError, Resolved, resolve

HEAD = 'kind = "train"\n[buckets]\n"64px" = { 1 = [1.0, 1] }\n'


def resolved(folder: Path, text: str, **environment: str) -> Resolved:
    path = folder / "recipe.toml"
    path.write_text(HEAD + text)
    return resolve(path, environment=environment)


def problem(folder: Path, text: str, **environment: str) -> tuple[str, str, int | None]:
    with pytest.raises(RecipeError) as caught:
        resolved(folder, text, **environment)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.message, diagnostic.place.line


def test_a_whole_string_keeps_the_type_and_inside_text_it_becomes_text(tmp_path: Path) -> None:
    text = '[optim]\nlr = 5e-5\neps = "${optim.lr}"\n[dataset]\ndata_path = "d/${optim.lr}/${dtype}/${model.qkv_bias}/${seed}"\n'
    recipe = resolved(tmp_path, text).recipe
    assert recipe.optim.eps == 5e-5
    assert recipe.dataset.data_path == "d/5e-05/bf16/true/42"


def test_lists_are_taken_whole_and_filled_item_by_item(tmp_path: Path) -> None:
    text = (
        '[memory]\ngrad_ckpt_settings = ["${model.depth}", 3]\n[model]\ndepth = 7\n[optim]\nbetas = "${optim.betas2}"\n'
    )
    with pytest.raises(RecipeError, match=r"`optim.betas` refers to `optim.betas2`"):
        resolved(tmp_path, text)
    recipe = resolved(tmp_path, text.replace("betas2", "betas").replace('betas = "${optim.betas}"', "")).recipe
    assert recipe.memory.grad_ckpt_settings == (7, 3)


def test_references_see_the_strongest_layer(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(HEAD + '[optim]\nlr = 1.0\neps = "${optim.lr}"\n')
    path = tmp_path / "recipe.toml"
    path.write_text('_base_ = "base.toml"\n')
    assert resolve(path, sets=["optim.lr=0.5"]).recipe.optim.eps == 0.5


def test_environment_with_and_without_default(tmp_path: Path) -> None:
    text = 'outputs = "${env:OUT:-runs}/x"\nseed = "${env:SEED:-7}"\n[dataset]\ndata_path = "${env:NUMBER}"\n'
    text = text.replace("[dataset]", "\n[dataset]")
    path = tmp_path / "recipe.toml"
    path.write_text('kind = "train"\n' + text + '[buckets]\n"64px" = { 1 = [1.0, 1] }\n')
    recipe = resolve(path, environment={"NUMBER": "12"}).recipe
    assert (recipe.outputs, recipe.seed, recipe.dataset.data_path) == ("runs/x", 7, "12")
    assert resolve(path, environment={"NUMBER": "1", "SEED": "9", "OUT": "/o"}).recipe.seed == 9


def test_recipe_dir_is_the_recipes_own_folder(tmp_path: Path) -> None:
    recipe = resolved(tmp_path, '[dataset]\ndata_path = "${recipe_dir}/meta.csv"\n').recipe
    assert recipe.dataset.data_path == f"{tmp_path}/meta.csv"


def test_a_plain_dollar_brace_survives_resolving_and_locking(tmp_path: Path) -> None:
    first = resolved(tmp_path, '[dataset]\ndata_path = "$${x}/$5"\n')
    assert first.recipe.dataset.data_path == "${x}/$5"
    (tmp_path / "lock.toml").write_text(first.lock())
    assert resolve(tmp_path / "lock.toml").recipe == first.recipe


def test_a_long_chain_needs_no_recursion(tmp_path: Path) -> None:
    links = "".join(f'"${{optim.k{index + 1}}}"'.join((f"k{index} = ", "\n")) for index in range(3000))
    with pytest.raises(RecipeError) as caught:
        resolved(tmp_path, f"[optim]\nlr = '${{optim.k0}}'\n{links}k3000 = 0.5\n")
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {"OSR001"}


def test_history_keeps_what_was_written_and_ends_with_the_value(tmp_path: Path) -> None:
    events = resolved(tmp_path, '[optim]\nlr = 0.5\neps = "${optim.lr}"\n').history("optim.eps")
    assert (events[-1].value, events[-1].written) == (0.5, "${optim.lr}")


def test_cycles_name_the_way_round_and_both_places(tmp_path: Path) -> None:
    text = '[optim]\nlr = "${optim.eps}"\neps = "${optim.lr}"\n'
    with pytest.raises(RecipeError) as caught:
        resolved(tmp_path, text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "OSR031"
    assert diagnostic.message == "references go round in a circle: optim.eps -> optim.lr -> optim.eps."
    assert diagnostic.second is not None
    assert {diagnostic.place.line, diagnostic.second.line} == {5, 6}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${optim.lrr}", "`optim.eps` refers to `optim.lrr`, which has no value."),
        ("${max_steps}", "`optim.eps` refers to `max_steps`, which has no value."),
        ("${model}", "`optim.eps` refers to the table `model`."),
        ("${buckets}", "`optim.eps` refers to the table `buckets`."),
        ("${a..b}", "`optim.eps` refers to `a..b`, which is no key."),
        ("${}", "`optim.eps` refers to ``, which is no key."),
        ("${lr", "`optim.eps` opens `${` and never closes it."),
        ("x${optim.betas}", "`optim.eps` puts the list `optim.betas` into text."),
        ("${env:NOT_SET_ANYWHERE}", "`optim.eps` needs the environment variable `NOT_SET_ANYWHERE`, which is not set."),
    ],
)
def test_references_that_cannot_be_followed(tmp_path: Path, value: str, message: str) -> None:
    assert problem(tmp_path, f'[optim]\nlr = 0.5\neps = "{value}"\n') == ("OSR030", message, 6)


def test_a_text_that_grows_without_end_is_stopped(tmp_path: Path) -> None:
    doubling = "".join(f'k{index} = "${{optim.k{index + 1}}}${{optim.k{index + 1}}}"\n' for index in range(40))
    with pytest.raises(RecipeError, match="grows to more than"):
        resolved(tmp_path, f'[optim]\n{doubling}k40 = "0123456789abcdef"\n')
