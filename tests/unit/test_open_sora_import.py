"""Open-Sora's configs as recipes: what is taken over, what is listed, and that an export gives the config back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.errors import UsageError
from schemas.open_sora import Config, Import, export_recipe, import_config, read_config
from schemas.recipes import RECIPES, AnyRecipe
from schemas.resolve import RecipeError, resolve
from schemas.resolve.fields import as_toml, choices
from schemas.resolve.validate import frozen
from tests.unit.open_sora_configs import RECIPE_OF, config_file

WHOLE = {name: recipe for name, recipe in RECIPE_OF.items() if not recipe.startswith("layers/")}


def imported(values: dict[str, Any], kind: str | None = None) -> Import:
    return import_config(Config("config.py", values), kind)


def reasons(result: Import) -> dict[str, str]:
    return {leftover.key: leftover.reason for leftover in result.leftovers}


@pytest.mark.parametrize(("name", "recipe"), WHOLE.items())
def test_an_imported_config_is_the_packaged_recipe(name: str, recipe: str) -> None:
    result = import_config(read_config(config_file(name)))
    assert result.recipe == resolve(recipe).recipe


@pytest.mark.parametrize("name", WHOLE)
def test_its_text_resolves_to_the_same_recipe(name: str, tmp_path: Path) -> None:
    result = import_config(read_config(config_file(name)))
    (tmp_path / "recipe.toml").write_text(result.text(name), encoding="utf-8")
    assert resolve(tmp_path / "recipe.toml").recipe == result.recipe


# A config that is generated from any values that a recipe may have

BASES = (
    "stage2",
    "high_compression",
    "vae/dc_ae_gan",
    "tiny/vae",
    "sample/768px",
    "sample/high_compression",
    "vae/sample_hunyuan",
)
NEVER = {"kind", "schema_version", "type", "engine"}


def leaves(table: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*path, name))
        elif name not in NEVER and name != "buckets":
            yield (*path, name), field


def values_of(field: FieldInfo) -> st.SearchStrategy[Any] | None:
    """Return values that a field takes; None for lists, which stay as they are."""
    kinds = choices(field.annotation)  # a number or a word: the word, since the number's limits stand elsewhere
    annotation = next((kind for kind in kinds if get_origin(kind) is Literal), kinds[0])
    low = max((m.ge for m in field.metadata if isinstance(m, Ge)), default=-1000)
    low = max([low, *(m.gt for m in field.metadata if isinstance(m, Gt))])
    high = min(
        [
            1000,
            *(m.le for m in field.metadata if isinstance(m, Le)),
            *(m.lt for m in field.metadata if isinstance(m, Lt)),
        ]
    )
    open_low = any(isinstance(m, Gt) for m in field.metadata)
    open_high = any(isinstance(m, Lt) for m in field.metadata)
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(int(low) + open_low, int(high) - open_high)
    if annotation is float:
        return st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_subnormal=False)
    if annotation is str:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    return None


@st.composite
def recipes(draw: st.DrawFn) -> AnyRecipe:
    recipe = resolve(draw(st.sampled_from(BASES))).recipe
    fields = [(path, values) for path, field in leaves(recipe) if (values := values_of(field)) is not None]
    tree = as_toml(recipe)
    for path, values in draw(st.lists(st.sampled_from(fields), max_size=12)):
        table = tree
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = draw(values)
    return RECIPES[recipe.kind].model_validate(frozen(tree))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(recipes())
def test_import_then_export_is_the_identity(recipe: AnyRecipe) -> None:
    export = export_recipe(recipe)
    again = imported(export.config, recipe.kind)
    assert export_recipe(again.recipe).config == export.config
    assert again.leftovers == ()
    if not export.lost:
        assert again.recipe == recipe


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(recipe=recipes())
def test_files_in_between_lose_nothing(recipe: AnyRecipe, tmp_path: Path) -> None:
    config = export_recipe(recipe).config
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "config.py").write_text(
        "".join(f"{name} = {value!r}\n" for name, value in config.items()), encoding="utf-8"
    )
    assert read_config(tmp_path / "config.py").values == read_config(tmp_path / "config.json").values == config
    result = imported(config, recipe.kind)
    (tmp_path / "recipe.toml").write_text(result.text("config.py"), encoding="utf-8")
    try:
        assert resolve(tmp_path / "recipe.toml").recipe == result.recipe
    except RecipeError as error:  # rules between fields may object to random values; the language may not
        assert {diagnostic.code[:4] for diagnostic in error.diagnostics} <= {"OSR1", "OSR2", "OSR3", "OSR4", "OSR5"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.sampled_from(BASES), st.lists(st.tuples(st.integers(0, 10**6), JSON), min_size=1, max_size=6))
def test_no_config_gives_a_traceback(base: str, changes: list[tuple[int, Any]]) -> None:
    recipe = resolve(base).recipe
    config = json.loads(json.dumps(export_recipe(recipe).config))
    for where, value in changes:
        table, name = config, list(config)[where % len(config)]
        while isinstance(table[name], dict) and table[name] and where % 3:
            table, where = table[name], where // 3
            name = list(table)[where % len(table)]
        table[name] = value
    result = imported(config, recipe.kind)
    assert result.text("config.py").startswith("# Imported from config.py")


# What cannot be taken over


def config(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(export_recipe(resolve("stage1_i2v").recipe).config)), **changes}


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"dtype": "fp16"}, "dtype", "Input should be 'bf16' or 'fp32'"),
        ({"is_causal_vae": False}, "is_causal_vae", "it follows, as true, from the family of the autoencoder"),
        ({"lr": 0.5}, "lr", "it follows, as 1e-05, from optim.lr"),
        ({"grad_ckpt_settings": [1, 2]}, "grad_ckpt_settings", "it follows, as [8, 100]"),
        ({"patch_size": 1}, "patch_size", "osora has no such key"),
        ({"load_master_weights": False}, "load_master_weights", "always holds fp32 weights"),
        ({"no_i2v_ref_loss": True}, "no_i2v_ref_loss", "no effect in Open-Sora"),
        ({"nsys_num_steps": 3}, "nsys_num_steps", "profiling"),
        ({"load": "outputs/1"}, "load", "--resume"),
        ({"ckpt_every": 0}, "ckpt_every", "0 never saves"),
        ({"keep_n_latest": -1}, "keep_n_latest", "keeps every checkpoint"),
        ({"wandb_project": "x"}, "wandb_project", "nothing reads it without"),
        ({"plugin_config": {"precision": "bf16"}}, "plugin_config.precision", "no such setting of a plugin"),
        (
            {"plugin_config": {"enable_sequence_parallelism": True}},
            "plugin_config.enable_sequence_parallelism",
            "sp_size decides",
        ),
        ({"plugin": "gemini"}, "plugin", "does not take it"),
        ({"bucket_config": {"256px": {"16": [1.0, None], "17": [1.0, 2]}}}, "bucket_config.256px.16", "valid integer"),
        ({"bucket_config": 3}, "bucket_config", "buckets are a table"),
        ({"never_heard_of": {"a": 1}}, "never_heard_of.a", "osora has no such key"),
        ({"t5": {"cache_dir": "/x"}}, "t5.cache_dir", "a path of a private cluster"),
    ],
)
def test_what_is_not_taken_over_has_a_reason(changes: dict[str, Any], key: str, words: str) -> None:
    result = imported(config(**changes))
    assert list(reasons(result)) == [key]
    assert words in reasons(result)[key]
    assert f"#   {key} = " in result.text("config.py")


def test_null_counts_as_absent() -> None:
    assert imported(config(load=None, wandb=None, ema_decay=None)).leftovers == ()


def test_a_seed_of_the_sampling_options_wins() -> None:
    values = export_recipe(resolve("sample/256px").recipe).config
    values["sampling_option"] = {**values["sampling_option"], "seed": 7}
    assert resolve("sample/256px", sets=["sampling.seed=7"]).recipe == imported(values).recipe


def test_open_soras_defaults_are_written_where_osoras_differ() -> None:
    result = imported({"model": {"type": "flux"}, "outputs": "outputs"})
    assert result.values["seed"] == 1024
    assert result.values["memory"] == {"grad_checkpoint": True}
    assert result.values["parallel"] == {"plugin": "zero2", "overlap_allgather": True}
    assert "ema_decay" not in result.values["optim"]


def test_weights_and_biases_has_one_key() -> None:
    assert imported(config(wandb=True, wandb_project="x")).recipe.logging.wandb_project == "x"


def test_conditions_without_t2v_do_not_get_it() -> None:
    recipe = imported(config(condition_config={"i2v_head": 2})).recipe
    assert recipe.condition.weights() == {"i2v_head": 2.0}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"model": {"type": "flux"}, "outputs": "x"}, "train"),
        ({"model": {"type": "flux"}, "save_dir": "x"}, "sample"),
        ({"model": {"type": "dc_ae"}, "outputs": "x"}, "vae-train"),
        ({"model": {"type": "autoencoder_2d"}, "save_dir": "x"}, "vae-sample"),
        ({"model": {"type": "OpenSoraVAE_V1_2"}, "save_dir": "x"}, "vae-sample"),
        ({"model": {"type": "STDiT3-XL/2"}, "outputs": "x"}, "train"),
    ],
)
def test_the_kind_is_told_by_the_keys(values: dict[str, Any], kind: str) -> None:
    assert imported(values).kind == kind


def test_a_kind_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(UsageError, match="give --kind"):
        imported({"seed": 1})
    assert imported({"seed": 1}, "vae-stats").recipe.seed == 1
