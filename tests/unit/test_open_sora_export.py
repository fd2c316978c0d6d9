"""Recipes under Open-Sora's keys: equal to its own resolved configs, but for the deliberate differences."""

import json
from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.open_sora import export_file, export_recipe
from schemas.open_sora.differences import DIFFERENCES, MISSING, Disagreement, disagreements
from schemas.open_sora.exporting import EXPORTED
from schemas.open_sora.page import page
from schemas.resolve import RecipeError, packaged_recipes, resolve
from tests.unit.open_sora_configs import ALL, RECIPE_OF, ROOT, config_file


def kind_of(recipe: str) -> str:
    return "sample" if recipe.startswith("layers/") else resolve(recipe).recipe.kind


@pytest.mark.parametrize(("name", "recipe"), RECIPE_OF.items())
def test_packaged_recipe_equals_open_soras_config(name: str, recipe: str) -> None:
    want = json.loads(config_file(name).read_text(encoding="utf-8"))
    export = export_file(recipe)
    found = list(disagreements(want, export.config))
    assert [each for each in found if each.explained_by(kind_of(recipe)) is None] == []
    assert export.lost == {}


def test_every_deliberate_difference_is_met() -> None:
    if not ALL.is_dir():
        pytest.skip(f"needs all configs, in {ALL}")
    met = set()
    for name, recipe in RECIPE_OF.items():
        found = disagreements(json.loads(config_file(name).read_text(encoding="utf-8")), export_file(recipe).config)
        met |= {each.explained_by(kind_of(recipe)) for each in found}
    assert [difference for difference in DIFFERENCES if difference not in met] == []


@pytest.mark.parametrize(
    ("want", "got", "keys"),
    [
        ({"a": {"b": 5}}, {"a": {"b": 5.0}}, []),
        ({"a": {"b": 5}}, {"a": {"b": 6}}, ["a.b"]),
        ({"a": True}, {"a": 1}, ["a"]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, ["a"]),
        ({"a": None}, {}, ["a"]),
        ({}, {"a": 1}, ["a"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a"]),
    ],
)
def test_disagreements(want: object, got: object, keys: list[str]) -> None:
    assert [each.key for each in disagreements(want, got)] == keys


def test_an_explanation_is_only_for_what_it_says() -> None:
    assert Disagreement("plugin", None, MISSING).explained_by("sample") is not None
    assert Disagreement("plugin", "zero2", MISSING).explained_by("sample") is None
    assert Disagreement("t5.cache_dir", "x", MISSING).explained_by("train") is not None
    assert Disagreement("t5.cache_dir", "x", "y").explained_by("train") is None
    assert Disagreement("wandb_project", "x", MISSING).explained_by("sample") is None


@pytest.mark.parametrize(
    ("recipe", "sets", "lost"),
    [
        ("stage1", ["max_steps=5", "device=cpu"], {"device", "max_steps"}),
        ("stage1", ["parallel.plugin=fsdp"], {"parallel.plugin"}),
        (
            "stage1",
            ["parallel.plugin=none", "parallel.overlap_allgather=true"],
            {"parallel.plugin"},
        ),
        ("stage1", ["optim.cls=AdamW8bit"], {"optim.cls"}),
        ("sample/256px", ["sampling.offload=block"], {"sampling.offload"}),
        ("sample/256px", ["parallel.plugin=ddp"], {"parallel.plugin"}),
        ("stage1", ["parallel.static_graph=true"], {"parallel.static_graph"}),
        (
            "vae/dc_ae",
            ["ae.model_name=custom", "ae.shape.latent_channels=8"],
            {"ae.model_name", "ae.shape.latent_channels"},
        ),
        ("vae/dc_ae", ["vae_loss.reconstruction_loss=l2"], {"vae_loss.reconstruction_loss"}),
    ],
)
def test_what_open_sora_cannot_say_is_named(recipe: str, sets: list[str], lost: set[str]) -> None:
    assert set(export_recipe(resolve(recipe, sets=sets).recipe).lost) == lost


def test_discriminator_and_adapters_have_their_own_tables() -> None:
    gan = export_file("vae/dc_ae_gan").config
    assert gan["discriminator"] == {
        "type": "N_Layer_discriminator_3D",
        "from_pretrained": None,
        "input_nc": 3,
        "n_layers": 5,
        "conv_cls": "conv3d",
    }
    assert gan["gen_loss_config"] == {"gen_start": 0, "disc_factor": 1.0, "disc_weight": 0.05}
    assert gan["optim_discriminator"]["lr"] == 1e-4
    lora = export_file("stage1", layers=["layers/lora"]).config
    assert lora["lora_config"]["r"] == 16
    assert lora["optim"]["lr"] == lora["lr"] == 1e-4


def test_a_layer_exports_what_it_adds() -> None:
    assert export_file("layers/offload").config == {"offload_model": True}
    assert set(export_file("layers/lora").config) == {"lora_config", "lr", "optim"}
    assert set(export_file("layers/hunyuan_vae").config) == {"ae"}  # which the recipe under it has already


def test_a_layer_that_fits_nowhere_is_a_diagnostic(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text("[sampling]\nnum_step = 3\n")
    with pytest.raises(RecipeError, match="num_step"):
        export_file(str(tmp_path / "odd.toml"))


def test_every_packaged_recipe_exports() -> None:
    for name in packaged_recipes():
        if name.startswith(("layers/tiny", "layers/v1_")) or of_the_first_generation(name):
            continue  # they change the widths of everything at once, or the family: they fit no recipe of Open-Sora 2.0
        assert isinstance(json.dumps(export_file(name).config), str)


def of_the_first_generation(name: str) -> bool:
    if name.startswith("layers/"):
        return False
    recipe = resolve(name).recipe
    return any(getattr(recipe, table).type not in known for table, known in EXPORTED.items() if hasattr(recipe, table))


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "open-sora-keys.md").read_text(encoding="utf-8") == page(), (
        "run: python -m schemas.open_sora.page"
    )


@pytest.mark.parametrize(("name", "key"), [("tiny/stdit3", "model.type"), ("v1/vae_stage1", "ae.type")])
def test_models_of_the_first_generation_are_not_written_back(name: str, key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} = .* Recipes of 1.x are read from its configs"):
        export_recipe(resolve(name).recipe)
