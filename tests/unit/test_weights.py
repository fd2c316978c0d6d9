"""Weights load strictly and save completely or not at all; mismatches are explained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from opensora_models import weights
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.mmdit.model import MMDiT
from opensora_models.weight_headers import read_headers
from opensora_models.weights import fit_weights, load_weights, read_weights, save_weights
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError

DENOISER = MMDiTConfig(
    in_channels=16,
    vec_in_dim=12,
    context_in_dim=20,
    hidden_size=32,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
    axes_dim=(4, 6, 6),
)
AUTOENCODER = HunyuanVAEConfig(
    latent_channels=4, layers_per_block=1, block_out_channels=(4, 4, 8, 8), norm_num_groups=2
)


def layer() -> nn.Linear:
    return nn.Linear(3, 2)


def assert_same(one: nn.Module, two: nn.Module) -> None:
    torch.testing.assert_close(dict(one.state_dict()), dict(two.state_dict()), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_format_loads(name: str, wrapped: bool, tmp_path: Path) -> None:
    source, target = layer(), layer()
    if name.endswith("safetensors"):
        save_weights(source.state_dict(), tmp_path / name)
    else:
        state = dict(source.state_dict())
        torch.save({"state_dict": state} if wrapped else state, tmp_path / name)
    load_weights(target, tmp_path / name)
    assert_same(source, target)


def test_old_torch_files_load(tmp_path: Path) -> None:
    source, target = layer(), layer()
    torch.save(dict(source.state_dict()), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    load_weights(target, tmp_path / "w.pt")
    assert_same(source, target)


def test_shards_and_index_load_from_their_folder(tmp_path: Path) -> None:
    source, target = MMDiT(DENOISER), MMDiT(DENOISER)
    (tmp_path / "model.safetensors").write_bytes(b"an older save")
    written = save_weights(source.state_dict(), tmp_path / "model.safetensors", max_shard_bytes=30_000)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in written)
    assert written[-1].name == "model.safetensors.index.json"
    assert written[0].name == f"model-00001-of-{len(written) - 1:05d}.safetensors"
    largest = max(weight.nbytes for weight in source.state_dict().values())
    assert all(path.stat().st_size < max(30_000, largest) + 4_000 for path in written[:-1])
    load_weights(target, tmp_path)
    assert_same(source, target)


def test_a_single_file_replaces_the_shards_index(tmp_path: Path) -> None:
    save_weights(MMDiT(DENOISER).state_dict(), tmp_path / "model.safetensors", max_shard_bytes=30_000)
    save_weights(layer().state_dict(), tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors.index.json").exists()
    assert set(read_weights(tmp_path)) == {"weight", "bias"}


def test_metadata_and_views_are_saved(tmp_path: Path) -> None:
    table = torch.arange(6.0).view(2, 3)
    save_weights({"t": table.t()}, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_tensor("t"), table.t())


def test_a_failed_save_leaves_the_old_file_and_no_scraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(layer().state_dict(), path)
    before = path.read_bytes()

    def full_disk(_tensors: object, aside: Path, metadata: object) -> None:
        aside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full_disk)
    with pytest.raises(OsoraError, match=r"w\.safetensors: cannot be written.*No space left"):
        save_weights(layer().state_dict(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_dtypes_are_the_modules(tmp_path: Path) -> None:
    source, target = layer(), layer().bfloat16()
    save_weights(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert target.weight.dtype == torch.bfloat16
    assert torch.equal(target.weight, source.weight.bfloat16())


def test_a_meta_module_takes_the_files_tensors(tmp_path: Path) -> None:
    source = layer()
    with torch.device("meta"):
        target = layer().bfloat16()
    save_weights(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target.weight, source.weight.bfloat16())
    with torch.device("meta"):
        target = layer()
    with pytest.raises(OsoraError, match="bias is on the meta device"):
        fit_weights(target, {"weight": torch.zeros(2, 3)}, "x", allow_missing=["bias"])


def test_renaming_and_allowed_gaps(tmp_path: Path) -> None:
    source, target = layer(), layer()
    save_file({"vae.weight": source.weight.detach()}, tmp_path / "w.safetensors")
    bias = target.bias.detach().clone()
    load_weights(target, tmp_path / "w.safetensors", allow_missing=["bi*"], rename=lambda key: key.removeprefix("vae."))
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, bias)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"depth": 3}, "model.depth"),
        ({"depth": 1}, "model.depth"),
        ({"depth_single_blocks": 4}, "model.depth_single_blocks"),
        ({"cond_embed": True}, "model.cond_embed"),
        ({"guidance_embed": True}, "model.guidance_embed"),
        ({"fused_qkv": False}, "model.fused_qkv"),
        ({"qkv_bias": False}, "model.qkv_bias"),
        ({"hidden_size": 48, "axes_dim": (8, 8, 8)}, "model.hidden_size"),
        ({"num_heads": 4, "axes_dim": (4, 2, 2)}, "model.num_heads"),
        ({"mlp_ratio": 2.0}, "model.mlp_ratio"),
        ({"in_channels": 20}, "model.in_channels"),
        ({"context_in_dim": 24}, "model.context_in_dim"),
        ({"vec_in_dim": 16}, "model.vec_in_dim"),
    ],
)
def test_the_recipe_key_behind_a_denoisers_mismatch(change: dict[str, object], key: str) -> None:
    file = MMDiT(DENOISER.model_copy(update=change)).state_dict()
    with pytest.raises(OsoraError) as error:
        fit_weights(MMDiT(DENOISER), file, "flux.safetensors")
    message = str(error.value)
    assert message.startswith("flux.safetensors: the weights do not fit the model.")
    assert f"Likely cause: `{key}` in the recipe" in message


def test_patch_size_is_told_from_in_channels() -> None:
    config = DENOISER.model_copy(update={"cond_embed": True})
    file = MMDiT(config.model_copy(update={"patch_size": 1})).state_dict()
    with pytest.raises(OsoraError, match=r"Likely cause: `model\.patch_size` in"):
        fit_weights(MMDiT(config), file, "x")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"mid_block_add_attention": False}, "ae.mid_block_add_attention"),
        ({"layers_per_block": 2}, "ae.layers_per_block"),
        ({"latent_channels": 6}, "ae.latent_channels"),
        ({"block_out_channels": (8, 8, 8, 8)}, "ae.block_out_channels"),
        ({"block_out_channels": (4, 4, 8, 12)}, "ae.block_out_channels"),
        ({"in_channels": 1}, "ae.in_channels"),
        ({"out_channels": 1}, "ae.out_channels"),
    ],
)
def test_the_recipe_key_behind_an_autoencoders_mismatch(change: dict[str, object], key: str) -> None:
    file = HunyuanVAE(AUTOENCODER.model_copy(update=change)).state_dict()
    with pytest.raises(OsoraError) as error:
        fit_weights(HunyuanVAE(AUTOENCODER), file, "x")
    assert f"Likely cause: `{key}`" in str(error.value)


def test_a_mismatch_is_grouped_and_counted() -> None:
    file = {"double_blocks.9.extra": torch.zeros(1), "double_blocks.8.extra": torch.zeros(1), "odd": torch.zeros(1)}
    file |= {"double_blocks.7.extra": torch.zeros(1), "weight": torch.zeros(3, 2)}
    with pytest.raises(OsoraError) as error:
        fit_weights(layer(), file, "x")
    assert str(error.value).splitlines() == [
        "x: the weights do not fit the model.",
        "  1 missing from the file:",
        "    bias",
        "  4 in the file but not in the model:",
        "    double_blocks.9.extra, double_blocks.8.extra, ... (3 like these)",
        "    odd",
        "  1 of another shape:",
        "    weight: the model has (2, 3), the file (3, 2)",
        "  Check that `from_pretrained` names weights of this family.",
    ]


def test_a_mismatch_changes_nothing() -> None:
    module = layer()
    before = module.weight.detach().clone()
    with pytest.raises(OsoraError):
        fit_weights(module, {"weight": torch.zeros(2, 3)}, "x")
    assert torch.equal(module.weight, before)


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """Every way of naming something unreadable, with what the message says."""
    save_weights(layer().state_dict(), folder / "cut.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "cut.safetensors").read_bytes()[:40])
    (folder / "cut.pt").write_bytes(b"PK\x03\x04 not much of a zip file")
    (folder / "text.pt").write_text("hello")
    (folder / "w.ckpt").write_text("")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"weight": Path("x")}, folder / "object.pt")
    (folder / "empty").mkdir()
    for name, weight_map in (("lacking", {"a": "s.safetensors"}), ("outside", {"a": "../cut.safetensors"})):
        (folder / name).mkdir()
        save_file({"b": torch.zeros(1)}, folder / name / "s.safetensors")
        (folder / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return {
        "cut": (folder / "cut.safetensors", "cannot be read as weights"),
        "cut pt": (folder / "cut.pt", "damaged|cannot be read"),
        "text": (folder / "text.pt", "damaged|cannot be read"),
        "suffix": (folder / "w.ckpt", r"weights are .* files, not \.ckpt"),
        "list": (folder / "list.pt", "expected a state dict"),
        "object": (folder / "object.pt", "holds more than tensors"),
        "absent": (folder / "none.safetensors", "no such file or folder"),
        "empty": (folder / "empty", "has none of model.safetensors, "),
        "lacking": (folder / "lacking", "the index names 1 keys that no shard has, a first"),
        "outside": (folder / "outside", "is not a file name"),
    }


@pytest.mark.parametrize(
    "name", ["cut", "cut pt", "text", "suffix", "list", "object", "absent", "empty", "lacking", "outside"]
)
def test_what_cannot_be_read_is_explained(name: str, tmp_path: Path) -> None:
    path, message = damaged(tmp_path)[name]
    with pytest.raises(OsoraError, match=message) as error:
        read_weights(path)
    assert str(error.value).startswith(str(tmp_path))


@pytest.mark.parametrize("folder", ["", "model"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "diffusion_pytorch_model.safetensors"])
def test_sharded_folders_of_other_programs_load(folder: str, name: str, tmp_path: Path) -> None:
    """ColossalAI keeps shards of pickled tensors and an index below model/, diffusers names safetensors in its own way."""
    state = {f"layer.{number}.weight": torch.full((2, 2), float(number)) for number in range(3)}
    inner = tmp_path / folder
    inner.mkdir(exist_ok=True)
    stem, suffix = name.rsplit(".", 1)
    shards = {key: f"{stem}-{number:05d}.{suffix}" for number, key in enumerate(state, 1)}
    for key, file in shards.items():
        (torch.save if suffix == "bin" else save_file)({key: state[key]}, inner / file)
    (inner / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    torch.testing.assert_close(read_weights(tmp_path), state)
    headers = read_headers(tmp_path)
    assert {key: header.shape for key, header in headers.items()} == dict.fromkeys(state, (2, 2))
    assert {header.dtype for header in headers.values()} == {"F32"}
    assert sum(header.nbytes for header in headers.values()) == 3 * 4 * 4


def test_headers_of_a_folder_account_for_every_key_of_its_index(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3, dtype=torch.bfloat16)}, tmp_path / "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}})
    )
    assert read_headers(tmp_path / "model-1.safetensors")["a"].nbytes == 12
    with pytest.raises(OsoraError, match="the index names 1 keys that no shard has, b first"):
        read_headers(tmp_path)
    with pytest.raises(OsoraError, match="no such file"):
        read_headers(tmp_path / "absent")
