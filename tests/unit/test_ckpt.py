"""`osora ckpt`: weights change their names, layout and files, never their function."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file

from opensora_cli.ckpt import download as downloads
from opensora_cli.ckpt.contents import content_lines, contents, key_lines
from opensora_cli.ckpt.convert import Output, convert_weights, import_weights
from opensora_cli.ckpt.prune import checkpoints_to_prune, prune
from opensora_cli.ckpt.trained import trained
from opensora_models.build import build_autoencoder
from opensora_models.mmdit.model import MMDiT
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe, TrainRecipe, VaeTrainRecipe
from schemas.resolve import resolve

HEAD = 16
CONFIG = MMDiTConfig(
    in_channels=16, vec_in_dim=12, context_in_dim=20, hidden_size=32, num_heads=2,
    depth=1, depth_single_blocks=1, axes_dim=(4, 6, 6), fused_qkv=False, use_liger_rope=True,
)  # fmt: skip


def weights(tmp_path: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    model = MMDiT(CONFIG.model_copy(update=changes))
    state = {key: torch.randn_like(tensor) for key, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def recipe(*sets: str) -> TrainRecipe:
    tiny = [
        f"model.{key}={json.dumps(value)}"
        for key, value in CONFIG.model_dump(exclude={"type"}).items()
        if value is not None
    ]
    found = resolve(
        "tiny/train", sets=[*tiny, "model.cond_embed=false", "condition={t2v=1,_delete_=true}", *sets]
    ).recipe
    assert isinstance(found, TrainRecipe)
    return found


def test_a_layout_there_and_back_is_the_same_bytes(tmp_path: Path) -> None:
    source = weights(tmp_path)
    for layout in ("flux", "diffusers"):
        there, back = tmp_path / f"{layout}.safetensors", tmp_path / f"{layout}-back.safetensors"
        convert_weights(source, layout, Output(there))
        assert load_file(there).keys() != load_file(source).keys()
        convert_weights(there, "open-sora", Output(back))
        torch.testing.assert_close(load_file(back), load_file(source), atol=0, rtol=0)


def test_diffusers_loads_an_exported_folder(tmp_path: Path) -> None:
    convert_weights(weights(tmp_path), "diffusers", Output(tmp_path / "flux"), trained_as=CONFIG)
    model = FluxTransformer2DModel.from_pretrained(tmp_path / "flux")
    assert model.config.axes_dims_rope == [4, 6, 6]
    torch.testing.assert_close(
        model.state_dict()["norm_out.linear.weight"].chunk(2)[0],
        load_file(tmp_path / "w.safetensors")["final_layer.adaLN_modulation.1.weight"].chunk(2)[1],
    )


def test_a_folder_for_diffusers_needs_to_know_the_axes(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"model\.axes_dim = .*add up to the head width, 16"):
        convert_weights(weights(tmp_path), "diffusers", Output(tmp_path / "flux"))
    assert not (tmp_path / "flux").exists()


@pytest.mark.parametrize("given", ["open-sora", "flux", "diffusers"])
def test_import_gives_a_recipe_what_it_loads(given: str, tmp_path: Path) -> None:
    source = weights(tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    convert_weights(source, given, Output(foreign))
    import_weights(foreign, recipe(), Output(tmp_path / "own.safetensors"))
    torch.testing.assert_close(load_file(tmp_path / "own.safetensors"), load_file(source), atol=0, rtol=0)


def test_import_renames_casts_and_shards(tmp_path: Path) -> None:
    source = weights(tmp_path)
    state = {f"module.{key}": tensor for key, tensor in load_file(source).items()}
    torch.save({"state_dict": state}, tmp_path / "upstream.pt")
    files = import_weights(tmp_path / "upstream.pt", recipe(), Output(tmp_path / "own", "bf16", 2e-5), ["module.="])
    assert len(files) > 2
    assert contents(tmp_path / "own")["dtypes"] == {"BF16": len(state)}
    with pytest.raises(UsageError, match="--rename 'nothing=': no key has 'nothing' in it"):
        import_weights(tmp_path / "upstream.pt", recipe(), Output(tmp_path / "other"), ["nothing="])


def test_import_says_what_does_not_fit_and_writes_nothing(tmp_path: Path) -> None:
    source, out = weights(tmp_path), Output(tmp_path / "own")
    with pytest.raises(
        OsoraError, match=r"missing from the file(.|\n)*cond_in(.|\n)*model\.allow_missing = \[\"cond_in\.\*\"\]"
    ):
        import_weights(source, recipe("model.cond_embed=true"), out)
    assert not out.path.exists()
    import_weights(source, recipe("model.cond_embed=true", 'model.allow_missing=["cond_in.*"]'), out)
    with pytest.raises(UsageError, match="exists"):
        import_weights(source, recipe(), out)


def test_an_autoencoder_is_imported_and_has_no_layout(tmp_path: Path) -> None:
    vae = resolve("tiny/vae").recipe
    assert isinstance(vae, VaeTrainRecipe)
    save_file(
        {k: t.contiguous() for k, t in build_autoencoder(vae.ae).state_dict().items()}, tmp_path / "vae.safetensors"
    )
    import_weights(tmp_path / "vae.safetensors", vae, Output(tmp_path / "own.safetensors"))
    with pytest.raises(OsoraError, match="--layout is the denoiser's"):
        convert_weights(tmp_path / "vae.safetensors", "flux", Output(tmp_path / "x"))
    found = contents(tmp_path / "own.safetensors")
    assert found["family"] == "hunyuan_vae (a recipe's [ae])"
    assert found["recipe"]["ae"] == {key: _plain(getattr(vae.ae, key)) for key in found["recipe"]["ae"]}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_inspect_tells_what_a_recipe_must_say(tmp_path: Path) -> None:
    text = "\n".join(line for _, line in content_lines(contents(weights(tmp_path, cond_embed=True))))
    assert "hidden_size = 32" in text
    assert "cond_embed = true" in text
    assert f"{sum(t.numel() for t in load_file(tmp_path / 'w.safetensors').values()):,} parameters" in text
    (line,) = [line for _, line in key_lines(tmp_path / "w.safetensors", "img_in.w*")]
    assert line == "img_in.weight  F32   [32, 16]"
    with pytest.raises(OsoraError, match="no key fits 'x'"):
        list(key_lines(tmp_path / "w.safetensors", "x"))


def run_folder(path: Path, updates: list[int], ema: bool = False) -> Path:
    lock = resolve("tiny/train").lock()
    for update in updates:
        checkpoint = path / "checkpoints" / f"step-{update:08d}"
        checkpoint.mkdir(parents=True)
        for name in ("model", "ema") if ema else ("model",):
            save_file({"x": torch.zeros(4)}, checkpoint / f"{name}.safetensors")
        (checkpoint / "progress.json").write_text(json.dumps({"update": update}))
    (path / "recipe.lock.toml").write_text(lock)
    return path


def test_prune_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [50, 100, 150, 200, 250])
    old = checkpoints_to_prune(run, keep=2, every=100)
    assert [path.name for path in old] == ["step-00000050", "step-00000150"]
    assert prune(old) > 0
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["step-00000100", "step-00000200", "step-00000250"]
    with pytest.raises(OsoraError, match="no run folder"):
        checkpoints_to_prune(tmp_path, keep=1)


def test_an_export_takes_the_average_where_there_is_one(tmp_path: Path) -> None:
    plain, averaged = run_folder(tmp_path / "plain", [1, 2]), run_folder(tmp_path / "averaged", [3], ema=True)
    assert trained(plain).weights == plain / "checkpoints" / "step-00000002" / "model.safetensors"
    assert trained(averaged).weights.name == "ema.safetensors"
    assert trained(averaged / "checkpoints" / "step-00000003", ema=False).weights.name == "model.safetensors"
    assert trained(plain).denoiser == resolve("tiny/train").recipe.model
    assert contents(averaged)["checkpoints"] == "step-00000003"
    with pytest.raises(OsoraError, match="kept no average"):
        trained(plain, ema=True)
    with pytest.raises(OsoraError, match="neither a run folder"):
        trained(tmp_path)


def test_download_names_repositories_and_fetches_no_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def fake(repository: str, **options: Any) -> str:
        calls.append((repository, options))
        return str(options["local_dir"] or "the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert downloads.download("open-sora-v2", tmp_path) == tmp_path
    assert calls[0][0] == "hpcai-tech/Open-Sora-v2"
    assert not any(pattern.endswith((".pt", ".bin", ".pth", "*")) for pattern in calls[0][1]["allow_patterns"])
    assert downloads.download("a/b", tmp_path, ["x.pth"], "v1") == tmp_path / "b"
    assert calls[1][1]["allow_patterns"] == ["x.pth"]
    assert calls[1][1]["revision"] == "v1"
    assert downloads.download("t5", tmp_path) == Path("the cache")
    with pytest.raises(OsoraError, match="neither a repository"):
        downloads.download("unknown", tmp_path)


def test_downloads_lie_where_packaged_recipes_look() -> None:
    for name in ("stage1", "sample/256px", "sample/high_compression"):
        recipe = resolve(name).recipe
        assert isinstance(recipe, TrainRecipe | SampleRecipe)
        paths = [recipe.model.from_pretrained, recipe.ae.from_pretrained]
        assert {str(Path(path).parent) for path in paths if path} == {"ckpts"}
    text = resolve("stage1").recipe.text  # type: ignore[union-attr]
    cached = {one.repository for one in downloads.PUBLISHED.values() if one.in_cache}
    assert cached == {text.t5.from_pretrained, text.clip.from_pretrained}


def test_download_explains_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OsoraError, match=r"cannot fetch a/b: .*Check the name and the network"):
        downloads.download("a/b", tmp_path)
