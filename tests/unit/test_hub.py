"""Weights by hub names: of the local cache alone, with a word on how to get what is not there."""

from pathlib import Path

import pytest
import torch
from torch import nn

from opensora_cli.sampling.weights import find_weights
from opensora_models.hub import local_path
from opensora_models.weight_headers import read_headers
from opensora_models.weights import load_weights, read_weights, save_weights
from schemas.errors import OsoraError

NAME = "someone/a-model"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a model in a hub cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "hub" / "models--someone--a-model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0123abc")
    folder = model / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "file", ["model.safetensors", "diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
)
def test_a_cached_model_loads_by_its_name(snapshot: Path, file: str) -> None:
    (snapshot / file).parent.mkdir(exist_ok=True)
    module = nn.Linear(2, 3)
    save_weights(module.state_dict(), snapshot / file)
    other = nn.Linear(2, 3)
    load_weights(other, NAME)
    assert torch.equal(other.weight, module.weight)
    assert read_headers(NAME)["weight"].shape == (3, 2)
    assert find_weights(NAME, "model.from_pretrained") in (snapshot, snapshot / "model.safetensors")


def test_a_path_goes_before_a_name(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "someone" / "a-model").mkdir(parents=True)
    assert local_path(NAME) == Path(NAME)
    assert local_path(tmp_path / "no") == tmp_path / "no"


@pytest.mark.parametrize(
    ("name", "words", "not_words"),
    [
        ("someone/another", "`hf download someone/another`", "unknown"),
        ("./someone/another", "no such file or folder. Set", "hf download"),
        ("demo/vae.safetensors", "no such file or folder. Set", "hf download"),
        ("no/../good", "no such file or folder. Set", "hf download"),
    ],
)
def test_what_is_not_here_has_a_way_to_get_it(snapshot: Path, name: str, words: str, not_words: str) -> None:
    with pytest.raises(OsoraError) as caught:
        read_weights(name)
    assert words in str(caught.value)
    assert not_words not in str(caught.value)
