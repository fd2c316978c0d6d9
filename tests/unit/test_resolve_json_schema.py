"""The JSON Schemas for editors: up to date, valid, and silent about every file that resolves."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import schemas
from opensora_cli.commands.config_schema import schema_text
from schemas.errors import UsageError
from schemas.resolve import packaged_recipes
from schemas.resolve.codes import all_codes
from schemas.resolve.json_schema import ANY_KIND, json_schema, packaged_schema, schema_names
from schemas.resolve.starter import starter

FOLDER = Path(schemas.__file__).parent / "json"
VALIDATORS = {name: Draft202012Validator(json_schema(name)) for name in schema_names()}


def flagged(text: str, name: str | None = None) -> list[str]:
    values = tomllib.loads(text)
    name = name or str(values.get("kind", ANY_KIND))
    return [error.json_path for error in VALIDATORS[name].iter_errors(values)]


@pytest.mark.parametrize("name", schema_names())
def test_the_committed_schema_is_up_to_date(name: str) -> None:
    committed = FOLDER / f"{name}.schema.json"
    assert committed.read_text(encoding="utf-8") == schema_text(name), "run `osora config schema --out schemas/json`"
    assert packaged_schema(name) == committed.resolve().as_uri()


def test_there_is_a_schema_for_every_kind_and_no_other() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{name}.schema.json" for name in schema_names())
    with pytest.raises(UsageError, match="there is no kind trian"):
        json_schema("trian")


@pytest.mark.parametrize("name", schema_names())
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(json.loads((FOLDER / f"{name}.schema.json").read_text()))


@pytest.mark.parametrize("name", packaged_recipes())
def test_no_packaged_file_is_flagged(name: str) -> None:
    text = packaged_recipes()[name].read_text(encoding="utf-8")
    assert flagged(text) == []
    assert flagged(text, ANY_KIND) == []


def test_neither_starters_nor_right_examples_are_flagged() -> None:
    texts = [starter(name) for name in schema_names() if name != ANY_KIND]
    for text in [*texts, *(code.right for code in all_codes().values())]:
        assert flagged(text) == [], text


@pytest.mark.parametrize(
    "text",
    [
        '_base_ = "stage1"\n[optim]\n_delete_ = ["lr"]\n[buckets]\n_delete_ = true\n',
        '_base_ = ["a.toml", "b"]\n[lora]\n_append_.target_modules = ["x"]\n_prepend_.target_modules = ["y"]\n',
        '[optim]\nlr = "${optim.eps}"\nbetas = ["${optim.eps}", 0.9]\nwarmup_steps = "${env:W:-3}"\n',
        '[optim]\nbetas = "${optim.betas}"\nschedule = "${env:SCHEDULE}"\n[memory]\ngrad_checkpoint = "${env:G}"\n',
        '[buckets."256px"]\n_delete_ = ["33"]\n1 = ["${env:P}", 3]\n5 = [[0.5, 0.5], 3]\n',
        '[ae]\ntype = "dc_ae"\nuse_spatial_tiling = true\n[ae.shape]\nwidth_list = [1, 2]\n',
        "max_steps = 3\n[ae]\nsample_size = 128\n",
    ],
)
def test_the_file_language_is_not_flagged(text: str) -> None:
    assert flagged(text) == []
    assert flagged(text, "train") == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[optim]\nlrr = 1\n", "$.optim"),
        ('[optim]\nlr = "1e-3"\n', "$.optim.lr"),
        ("[optim]\nlr = 0\n", "$.optim.lr"),
        ('[optim]\nschedule = "cosin"\n', "$.optim.schedule"),
        ("[optim]\nbetas = [0.9]\n", "$.optim.betas"),
        ("[optim]\n_delete_ = 3\n", "$.optim['_delete_']"),
        ('kind = "sample"\n', "$.kind"),
        ("_base_ = 3\n", "$['_base_']"),
        ('max_steps = "none"\n', "$.max_steps"),
        ("[sampling]\n", "$"),
    ],
)
def test_mistakes_are_flagged_where_they_are(text: str, place: str) -> None:
    assert flagged(text, "train") == [place]


def test_a_key_says_what_it_is_and_what_a_change_costs() -> None:
    schema: Any = json_schema("train")
    lr = schema["$defs"]["OptimConfig"]["properties"]["lr"]
    assert lr["description"].startswith("Learning rate after warm-up.\nchanges_numerics: ")
    assert lr["default"] == 1e-4
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert '"type": "null"' not in json.dumps(schema)
    assert '"required"' not in json.dumps(schema)
