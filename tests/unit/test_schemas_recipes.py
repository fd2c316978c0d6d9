"""Every schema describes itself, every default resolves, every packaged recipe and layer holds."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from schemas.autoencoder import AutoEncoder2DConfig, DCAEConfig, HunyuanVAEConfig
from schemas.base import COST_MEANING
from schemas.recipes import RECIPES
from schemas.resolve import packaged_recipes, resolve
from schemas.resolve.fields import tables_of

NAMED_IN_THE_DESIGN = (
    *("image", "stage1", "stage2", "stage1_i2v", "stage2_i2v", "high_compression", "demo"),
    *(f"sample/{name}" for name in ("256px", "768px", "256px_tp", "t2i2v_256px", "t2i2v_768px", "high_compression")),
    *(f"vae/{name}" for name in ("dc_ae", "dc_ae_gan", "sample_dc_ae", "sample_hunyuan")),
    *(f"layers/{name}" for name in ("sp", "tp", "t2i2v", "lora", "low_vram", "offload", "fsdp", "ci")),
    *(f"layers/memory_{name}" for name in ("low", "balanced", "high")),
    *(f"examples/{name}" for name in ("custom_finetune", "high_quality_sample", "fast_prototype_sample")),
)
LAYERS = {
    "sample/256px": ("sp", "tp", "t2i2v", "low_vram", "offload", "text_encoders", "hunyuan_vae", "mmdit_11b"),
    "stage1": (
        *("lora", "fsdp", "ci", "memory_low", "memory_balanced", "memory_high"),
        *("lr_image", "lr_stage1", "lr_stage2", "lr_i2v", "lr_high_compression", "lr_finetune"),
    ),
    "vae/dc_ae": ("fsdp", "ci", "dc_ae"),
    "high_compression": ("mmdit_high_compression", "lora"),
    "v1/stdit3_stage1": ("v1_train", "v1_stdit3", "v1_stdit3_train", "v1_t5", "v1_video_vae"),
    "v1/stdit2_stage1": ("v1_stdit2", "v1_stdit2_train", "v1_sd_vae"),
    "v1/stdit_16x256x256": ("v1_0_train", "v1_0_t5"),
    "v1/dit_16x256x256": ("v1_clip",),
    "v1/vae_stage1": ("v1_vae_train",),
    "v1/sample/stdit3": ("v1_sample",),
    "v1/sample/stdit_16x256x256": ("v1_0_sample",),
    "v1/sample/dit_1x256x256": ("v1_dpm_sample",),
}


def schemas_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for member in tables_of(field.annotation):
            found |= schemas_of(member)
    return found


ALL = sorted(set().union(*(schemas_of(model) for model in RECIPES.values())), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", ALL)
def test_fields_say_what_they_are(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description[0].isupper() or field.description[0].islower(), name
        assert field.description.endswith("."), f"{model.__name__}.{name}: {field.description}"


@pytest.mark.parametrize("model", ALL)
def test_costs_are_known_ones(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        costs = extra.get("cost", []) if isinstance(extra, dict) else []
        assert set(costs) <= set(COST_MEANING), f"{model.__name__}.{name}"


@pytest.mark.parametrize("kind", RECIPES)
def test_defaults_are_a_recipe(kind: str) -> None:
    RECIPES[kind].model_validate({"kind": kind})
    for name, field in RECIPES[kind].model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            assert type(default).model_validate(default.model_dump()) == default, name


def test_the_recipes_of_the_design_are_there() -> None:
    assert [name for name in NAMED_IN_THE_DESIGN if name not in packaged_recipes()] == []


@pytest.mark.parametrize("name", [name for name in packaged_recipes() if not name.startswith("layers/")])
def test_packaged_recipe_holds(name: str, tmp_path: Path) -> None:
    resolved = resolve(name)
    (tmp_path / "lock.toml").write_text(resolved.lock(), encoding="utf-8")
    assert resolve(tmp_path / "lock.toml").recipe == resolved.recipe


@pytest.mark.parametrize(("recipe", "layer"), [(recipe, layer) for recipe, names in LAYERS.items() for layer in names])
def test_layer_holds_over_a_recipe(recipe: str, layer: str) -> None:
    assert resolve(recipe, layers=[f"layers/{layer}"]).recipe.kind == resolve(recipe).recipe.kind


def test_every_layer_is_tried() -> None:
    tried = {f"layers/{name}" for names in LAYERS.values() for name in names}
    tiny = {f"layers/tiny{rest}" for rest in ("", "_denoiser", "_learn", "_learn_denoiser", "_v1")}
    assert {name for name in packaged_recipes() if name.startswith("layers/")} - tried - tiny == set()


def test_autoencoders_share_the_facts_that_rules_need() -> None:
    facts = {
        type(config).__name__: (
            config.latent_channels,
            config.time_compression_ratio,
            config.spatial_compression_ratio,
            config.causal,
        )
        for config in (HunyuanVAEConfig(), DCAEConfig(), AutoEncoder2DConfig())
    }
    assert facts == {
        "HunyuanVAEConfig": (16, 4, 8, True),
        "DCAEConfig": (128, 4, 32, False),
        "AutoEncoder2DConfig": (16, 1, 8, False),
    }


def test_a_custom_dc_ae_has_the_shape_it_says() -> None:
    shape = {"latent_channels": 8, "width_list": (8, 8, 16), "temporal_downsample": (True, False, False)}
    config = DCAEConfig.model_validate({"model_name": "custom", "shape": shape})
    assert (config.latent_channels, config.time_compression_ratio, config.spatial_compression_ratio) == (8, 2, 4)
    named = DCAEConfig.model_validate({"shape": shape})
    assert (named.latent_channels, named.spatial_compression_ratio) == (128, 32)
