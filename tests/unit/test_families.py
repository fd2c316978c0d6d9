"""Every family of models has all that makes one: a family is a member of a union, and the rest follows from that."""

import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from opensora_models import recognise as recognising
from opensora_models.build import build_autoencoder, build_denoiser
from schemas.autoencoder import AutoencoderConfig
from schemas.base import Schema
from schemas.denoiser import DenoiserConfig, LatentDenoiser
from schemas.resolve import resolve
from schemas.resolve.packaged import packaged_recipes
from tests.parity.runner import FAMILIES, load_checks

ROOT = Path(import_module("opensora_models").__path__[0])
DENOISERS: tuple[type[Schema], ...] = get_args(get_args(DenoiserConfig)[0])
AUTOENCODERS: tuple[type[Schema], ...] = get_args(get_args(AutoencoderConfig)[0])
PARITY = {"autoencoder_kl": "vae", "open_sora_vae": "vae"}
"""Family -> folder of its recorded numbers, where that has another name."""
SHAPES_TELL_NOTHING = {"autoencoder_2d", "dc_ae"}
"""Families whose weights are not recognised: a recipe has to name them."""
INTERFACE = ("config", "likely_causes", "units", "set_grad_checkpointing", "final_layer")
LATENT_INTERFACE = ("conditions", "computed_keys")


def folder_of(config: type[Schema]) -> str:
    """Return the family: schemas/<kind>/<family>.py and opensora_models/<family>/ have one name."""
    return config.__module__.rsplit(".", 1)[1]


def type_of(config: type[Schema]) -> str:
    return str(config.model_fields["type"].default)


@cache
def built(config: type[Schema]) -> nn.Module:
    build = build_denoiser if config in DENOISERS else build_autoencoder
    with torch.device("meta"):
        return build(config())  # type: ignore[arg-type]


@cache
def types_in_recipes() -> frozenset[str]:
    """Return every `type` of a model that some packaged recipe comes to, models inside of models too."""
    found: set[object] = set()
    waiting: list[object] = [
        part
        for name in packaged_recipes()
        if not name.startswith("layers/")
        for part in dict(resolve(name).recipe).values()
    ]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Schema):
            found.add(getattr(part, "type", None))
            waiting += dict(part).values()
    return frozenset(str(name) for name in found)


def test_the_unions_are_walked() -> None:
    assert {"mmdit", "stdit3", "pixart"} <= set(map(type_of, DENOISERS))
    assert {"hunyuan_vae", "open_sora_vae", "vae_temporal"} <= set(map(type_of, AUTOENCODERS))


@pytest.mark.parametrize("config", [*DENOISERS, *AUTOENCODERS], ids=type_of)
def test_a_family_has_its_folder_schema_and_numbers(config: type[Schema]) -> None:
    family = folder_of(config)
    kind = "denoiser" if config in DENOISERS else "autoencoder"
    assert config.__module__ == f"schemas.{kind}.{family}"
    needed = {"model.py", "weights.py"} | (set() if family in SHAPES_TELL_NOTHING else {"recognise.py"})
    assert needed <= {file.name for file in (ROOT / family).iterdir()}
    assert type(built(config)).__module__.startswith(f"opensora_models.{family}.")
    assert built(config).config == config()
    assert PARITY.get(family, family) in FAMILIES
    assert callable(load_checks(PARITY.get(family, family)))


@pytest.mark.parametrize("config", DENOISERS, ids=type_of)
def test_a_denoiser_has_what_training_planning_and_loading_ask_for(config: type[Schema]) -> None:
    module = built(config)
    more = LATENT_INTERFACE if issubclass(config, LatentDenoiser) else ()
    assert [name for name in (*INTERFACE, *more) if not hasattr(module, name)] == []
    held = {child for stack in module.children() for child in stack.children()}
    assert set(module.units) <= held, "planning finds a block's stack one level below the module"


@pytest.mark.parametrize("config", [*DENOISERS, *AUTOENCODERS], ids=type_of)
def test_a_packaged_recipe_names_the_family(config: type[Schema]) -> None:
    assert type_of(config) in types_in_recipes()


def test_import_rules_and_recognition_know_every_family() -> None:
    families = set(map(folder_of, (*DENOISERS, *AUTOENCODERS)))
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (independent,) = [contract["modules"] for contract in contracts if contract["type"] == "independence"]
    assert {f"opensora_models.{family}" for family in families} <= set(independent)
    asked = {module.__name__.split(".")[1] for module in vars(recognising).values() if hasattr(module, "recognise")}
    assert asked == families - SHAPES_TELL_NOTHING


@pytest.mark.parametrize("config", DENOISERS, ids=type_of)
def test_weights_of_a_family_are_recognised_as_its_own(config: type[Schema]) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in built(config).state_dict().items()}
    if type_of(config) == "latte":  # what Latte's authors publish; without that table the weights pass for a DiT's
        shapes["temp_embed"] = (1, 16, 1152)
    found = recognising.recognise(shapes)
    assert found is not None and found.table == "model"
    again = config.model_validate(found.config)
    given = set(found.config) - {"num_heads", "use_liger_rope"}
    assert {key: getattr(again, key) for key in given} == {key: getattr(config(), key) for key in given}
