"""`osora config import` and `export` as a user runs them: files, exit codes, what is said on stderr."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.cli.conftest import Osora

STAGE = """\
_base_ = ["base.py"]
lr = 3e-5
optim = dict(cls="HybridAdam", lr=lr, eps=1e-15, adamw_mode=True)
ae = dict(cache_dir="/mnt/cluster")
"""
BASE = """\
model = dict(type="flux", from_pretrained=None)
ae = dict(type="hunyuan_vae", from_pretrained="./ckpts/hunyuan_vae.safetensors")
bucket_config = {"256px": {1: (1.0, 45), 33: (1.0, 12)}}
outputs = "outputs"
ckpt_every = 200
"""


def write(folder: Path) -> None:
    (folder / "stage.py").write_text(STAGE)
    (folder / "base.py").write_text(BASE)


def test_import_writes_a_recipe_that_validates(osora: Osora, tmp_path: Path) -> None:
    write(tmp_path)
    done = osora("config", "import", "stage.py", "--out", "recipes/stage.toml")
    assert (done.returncode, done.stdout) == (0, "wrote recipes/stage.toml\n")
    assert done.stderr == (
        "note: stage.py:4:11: not taken over: ae.cache_dir = '/mnt/cluster': the hub's cache is where HF_HOME says\n"
    )
    text = (tmp_path / "recipes" / "stage.toml").read_text()
    assert text.startswith("# Imported from stage.py (Open-Sora).\n#\n# Not taken over:\n#   ae.cache_dir = ")
    values = tomllib.loads(text)
    assert values["buckets"] == {"256px": {"1": [1.0, 45], "33": [1.0, 12]}}
    assert values["optim"]["lr"] == 3e-5
    assert osora("config", "validate", "recipes/stage.toml").returncode == 0


def test_import_and_export_are_each_others_inverse(osora: Osora, tmp_path: Path) -> None:
    write(tmp_path)
    assert osora("config", "import", "stage.py", "--out", "stage.toml").returncode == 0
    first = osora("config", "export", "stage.toml", "--to", "open-sora", "--out", "stage.json")
    assert (first.returncode, first.stderr) == (0, "")
    again = osora("config", "import", "stage.json", "--out", "again.toml")
    assert (again.returncode, again.stderr) == (0, "")
    assert osora("config", "export", "again.toml").stdout == (tmp_path / "stage.json").read_text()


def test_export_prints_open_soras_keys(osora: Osora) -> None:
    done = osora(
        "config", "export", "sample/256px", "--set", "sampling.num_steps=7", "--set", "sampling.fp8_weights=true"
    )
    config = json.loads(done.stdout)
    assert config["sampling_option"]["num_steps"] == 7
    assert config["model"]["type"] == "flux"
    assert done.stderr == "note: sampling.fp8_weights is not in the export: Open-Sora has no such key.\n"


def test_export_of_a_layer(osora: Osora) -> None:
    done = osora("config", "export", "layers/offload")
    assert json.loads(done.stdout) == {"offload_model": True}


def test_what_is_refused_stands_with_its_place(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("a = 1\nimport os\n")
    done = osora("config", "import", "config.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("config.py:2:1: this statement (import) is not read")


def test_nothing_of_a_config_is_run(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("x = __import__('pathlib').Path('ran').touch()\nmodel = dict(type='flux')\n")
    assert osora("config", "import", "config.py").returncode == 1
    assert not (tmp_path / "ran").exists()


def test_a_broken_rule_is_said(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model": {"type": "flux"}, "outputs": "x", "bucket_config": {"256px": {"32": [1.0, 4]}}})
    )
    done = osora("config", "import", "config.json")
    assert done.returncode == 0
    assert "the recipe breaks OSR203: buckets.256px.32: the causal autoencoder needs 4k+1 frames." in done.stderr


def test_files_are_not_replaced_unasked(osora: Osora, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "there").write_text("mine")
    for arguments in (("import", "stage.py"), ("export", "stage1")):
        done = osora("config", *arguments, "--out", "there")
        assert (done.returncode, (tmp_path / "there").read_text()) == (2, "mine")
        assert "there exists. Give another name, or --overwrite." in done.stderr
    assert osora("config", "export", "stage1", "--out", "there", "--overwrite").returncode == 0
    assert json.loads((tmp_path / "there").read_text())["model"]["type"] == "flux"


def test_wrong_usage(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"seed": 1}')
    untold = osora("config", "import", "config.json")
    assert untold.returncode == 2
    assert "give --kind" in untold.stderr
    assert osora("config", "import", "config.json", "--kind", "vae-stats").returncode == 0
    unknown = osora("config", "import", "config.json", "--kind", "training")
    assert unknown.returncode == 2
    assert "--kind training: must be one of train, vae-train" in unknown.stderr
    assert osora("config", "import", "missing.py").returncode == 1
    assert osora("config", "export", "stage1", "--to", "elsewhere").returncode == 2


def test_neither_needs_torch() -> None:
    code = (
        "import opensora_cli.commands.config_convert, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
