"""Open-Sora 1.0 to 1.2: their configs as recipes, and the packaged recipes that are the same."""

from pathlib import Path
from typing import Any

import pytest

from schemas.checks import run_checks
from schemas.open_sora import Config, Import, import_config, read_config
from schemas.recipes import SampleRecipe, TrainRecipe
from schemas.resolve import packaged_recipes, resolve
from tests.unit.open_sora_configs import ALL, COMMITTED, FIRST_RECIPE_OF, config_file

WITHOUT_COUNTERPART = {
    "v1.2/opensora-v1-1/train/benchmark",  # batch sizes to search between
    "v1.2/opensora-v1-2/misc/bs",
    "v1.2/opensora-v1-2/train/stage1_feat",  # batches that lie in files
}
PUBLISHED_VAE = "hpcai-tech/OpenSora-VAE-v1.2"
"""What the packaged recipes of 1.2 have in place of a folder of a private cluster."""


def imported(values: dict[str, Any], kind: str | None = None) -> Import:
    return import_config(Config("config.py", values), kind)


def reasons(result: Import) -> dict[str, str]:
    return {leftover.key: leftover.reason for leftover in result.leftovers}


def training(**changes: Any) -> dict[str, Any]:
    return {"model": {"type": "STDiT3-XL/2"}, "outputs": "x", **changes}


def sampling(**changes: Any) -> dict[str, Any]:
    return {"model": {"type": "STDiT3-XL/2"}, "save_dir": "x", "scheduler": {"type": "rflow"}, **changes}


@pytest.mark.parametrize(("name", "recipe"), FIRST_RECIPE_OF.items())
def test_an_imported_config_is_the_packaged_recipe(name: str, recipe: str) -> None:
    got, want = import_config(read_config(config_file(name))).recipe, resolve(recipe).recipe
    if isinstance(got, TrainRecipe) and got.ae.from_pretrained == "/mnt/jfs/sora_checkpoints/vae-pipeline":
        got = got.model_copy(update={"ae": got.ae.model_copy(update={"from_pretrained": PUBLISHED_VAE})})
    assert got == want


def every_config() -> list[str]:
    found = {
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in (COMMITTED, ALL)
        for path in folder.glob("v1.*/**/*.json")
    }
    return sorted(found)


@pytest.mark.parametrize("name", every_config())
def test_every_config_becomes_a_recipe_that_keeps_the_rules(name: str) -> None:
    result = import_config(read_config(config_file(name)))
    found = {finding.code for finding in run_checks(result.recipe) if finding.severity == "error"}
    assert ("OSR201" in found) if name in WITHOUT_COUNTERPART else not found
    for key, reason in reasons(result).items():
        assert reason not in ("Open-Sora 1.x alone has it", "osora has no such key"), key
        assert "does not take it" not in reason, key


@pytest.mark.parametrize("name", [name for name in every_config() if (COMMITTED / f"{name}.json").is_file()])
def test_its_text_resolves_to_the_same_recipe(name: str, tmp_path: Path) -> None:
    result = import_config(read_config(config_file(name)))
    (tmp_path / "recipe.toml").write_text(result.text(name), encoding="utf-8")
    assert resolve(tmp_path / "recipe.toml").recipe == result.recipe


@pytest.mark.parametrize(
    ("name", "family", "wide"),
    [
        ("STDiT-XL/2", "stdit", 1152),
        ("STDiT2-XL/2", "stdit2", 1152),
        ("STDiT3-3B/2", "stdit3", 1872),
        ("DiT-XL/2", "dit", 1152),
        ("Latte-XL/2", "latte", 1152),
        ("PixArt-1B/2", "pixart", 1872),
    ],
)
def test_names_are_families(name: str, family: str, wide: int) -> None:
    recipe = imported(training(model={"type": name}))
    assert isinstance(recipe.recipe, TrainRecipe)
    assert (recipe.recipe.model.type, recipe.recipe.model.hidden_size) == (family, wide)
    assert "model.type" not in reasons(recipe)


def test_an_unknown_family_is_said() -> None:
    result = imported(training(model={"type": "Sora-XXL/2", "depth": 3}))
    assert reasons(result)["model.type"] == "no family of osora's has this name"
    assert set(reasons(result)) == {"model.type", "model.depth"}


def test_upstreams_defaults_are_written_where_osoras_differ() -> None:
    model = imported(training(model={"type": "STDiT2-XL/2"})).values["model"]
    assert (model["qk_norm"], model["input_sq_size"]) == (False, 32)


@pytest.mark.parametrize(
    ("values", "buckets", "left"),
    [
        ({"image_size": [256, 256], "num_frames": 17, "batch_size": 8}, {"256x256": {"17": [1.0, 8]}}, set()),
        ({"dataset": {"image_size": [240, 426], "num_frames": 1}}, {"240x426": {"1": [1.0, 1]}}, set()),
        ({"num_frames": 17}, None, {"num_frames"}),
        (
            {"image_size": [256, 256], "num_frames": 17, "bucket_config": {"144p": {"1": [1.0, 2]}}},
            {"144p": {"1": [1.0, 2]}},
            {"image_size", "num_frames"},
        ),
    ],
)
def test_one_size_is_one_bucket(values: dict[str, Any], buckets: object, left: set[str]) -> None:
    result = imported(training(**values))
    assert result.values.get("buckets") == buckets
    assert set(reasons(result)) == left


@pytest.mark.parametrize(
    ("bucket", "want"), [([0.0, None], [0.0, 1]), ([None, 3], [1.0, 3]), ([[0.4, 0.1], 2], [[0.4, 0.1], 2])]
)
def test_a_bucket_keeps_its_meaning(bucket: list[Any], want: list[Any]) -> None:
    result = imported(training(bucket_config={"256": {"16": bucket}}))
    assert result.values["buckets"] == {"256": {"16": want}}
    assert reasons(result) == {}


def test_batch_sizes_to_search_between_are_no_buckets() -> None:
    assert "osora config plan" in reasons(imported(training(bucket_config={"720p": {"1": [20, 40]}})))["bucket_config"]


def test_masks_have_osoras_names() -> None:
    result = imported(training(mask_ratios={"identity": 0.9, "intepolate": 0.04, "image_head": 0.03, "mask_no": 0.03}))
    assert isinstance(result.recipe, TrainRecipe)
    assert result.recipe.mask_ratios.ratios() == {"interpolate": 0.04, "image_head": 0.03}
    assert set(reasons(result)) == {"mask_ratios.mask_no"}


@pytest.mark.parametrize(
    ("name", "diffusion", "solver"),
    [
        ("iddpm", "iddpm", "ddpm"),
        ("iddpm-speed", "iddpm", "ddpm"),
        ("dpm-solver", "iddpm", "dpmpp_2m"),
        ("rflow", "rflow", "euler"),
    ],
)
def test_a_scheduler_is_a_process_and_a_solver(name: str, diffusion: str, solver: str) -> None:
    recipe = imported(sampling(scheduler={"type": name, "num_sampling_steps": 7})).recipe
    assert isinstance(recipe, SampleRecipe)
    got = recipe.sampling
    assert (recipe.diffusion.type, got.solver, got.num_steps, got.guidance) == (diffusion, solver, 7, 4.0)


@pytest.mark.parametrize(
    ("model", "channels"), [({"enable_flashattn": True}, 3), ({"enable_flash_attn": True}, None), ({}, None)]
)
def test_only_1_0_guides_three_channels(model: dict[str, Any], channels: int | None) -> None:
    values = sampling(model={"type": "STDiT-XL/2", **model}, scheduler={"type": "iddpm"})
    recipe = imported(values).recipe
    assert isinstance(recipe, SampleRecipe)
    assert recipe.diffusion.type == "iddpm"
    assert recipe.diffusion.cfg_channel == channels


@pytest.mark.parametrize(
    ("type_", "start", "missing"),
    [
        ("STDiT-XL/2", "models/PixArt-XL-2-512x512.pth", ("blocks.*.attn_temp.*",)),
        ("STDiT-XL/2", "outputs/1", ()),
        ("DiT-XL/2", "DiT-XL-2-256x256.pt", ("y_embedder.*",)),
        ("PixArt-XL/2", "PixArt-XL-2-512x512.pth", ()),
    ],
)
def test_what_an_image_model_lacks_starts_anew(type_: str, start: str, missing: tuple[str, ...]) -> None:
    recipe = imported(training(model={"type": type_, "from_pretrained": start})).recipe
    assert isinstance(recipe, TrainRecipe)
    assert (recipe.model.from_pretrained, recipe.model.allow_missing) == (start, missing)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"dtype": "fp16"}, "dtype", "bf16 takes its place"),
        ({"fps": 24, "save_fps": 8}, "save_fps", "which is `fps`"),
        ({"frame_interval": 3}, "frame_interval", "which is `fps`"),
        ({"mask_strategy": ["0", None]}, "mask_strategy", "one for each prompt"),
        ({"reference_path": ["a.png"]}, "reference_path", "the column ref"),
        ({"multi_resolution": "STDiT2"}, "multi_resolution", "the family says"),
        ({"prompt_path": "a.txt"}, "prompt_path", "an option of the command"),
        ({"never_heard_of": 1}, "never_heard_of", "Open-Sora 1.x alone has it"),
        ({"aspect_ratio": "wide"}, "aspect_ratio", "height:width"),
    ],
)
def test_what_is_not_taken_over_has_a_reason(changes: dict[str, Any], key: str, words: str) -> None:
    result = imported(sampling(**changes))
    assert list(reasons(result)) == [key]
    assert words in reasons(result)[key]


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"aspect_ratio": "9:16"}, "aspect_ratio", "16:9"),
        ({"num_frames": "4s"}, "num_frames", 102),
        ({"num_frames": "2x"}, "num_frames", 102),
        ({"num_frames": "51"}, "num_frames", 51),
        ({"mask_strategy": "0,0,-8,0,8"}, "mask_strategy", "0,0,-8,0,8"),
        ({"fps": 12}, "fps_save", 12),
        ({"aes": 6.5}, "aes", 6.5),
        ({"image_size": [240, 426]}, "width", 426),
    ],
)
def test_how_sampling_is_said_here(changes: dict[str, Any], key: str, value: object) -> None:
    result = imported(sampling(**changes))
    assert isinstance(result.recipe, SampleRecipe)
    assert getattr(result.recipe.sampling, key) == value
    assert reasons(result) == {}


@pytest.mark.parametrize(
    ("plugin", "size", "want", "left"),
    [
        ("zero2", 1, ("zero2", 1), set()),
        ("zero2-seq", 2, ("hybrid", 2), set()),
        ("zero2", 2, ("zero2", 1), {"sp_size"}),
        ("gemini", 1, ("none", 1), {"plugin"}),
    ],
)
def test_plugins(plugin: str, size: int, want: tuple[str, int], left: set[str]) -> None:
    result = imported(training(plugin=plugin, sp_size=size))
    assert isinstance(result.recipe, TrainRecipe)
    assert (result.recipe.parallel.plugin, result.recipe.parallel.sp_size) == want
    assert set(reasons(result)) - {"sp_size"} == left - {"sp_size"}
    assert ("sp_size" in reasons(result)) == ("sp_size" in left or plugin == "gemini")


@pytest.mark.parametrize("name", [name for name in packaged_recipes() if name.startswith("v1/")])
def test_no_packaged_recipe_has_a_warning(name: str) -> None:
    assert list(run_checks(resolve(name).recipe)) == []
