import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from opensora_cli.data.demo_clips import clip_frames, draw_clip, write_mp4
from opensora_cli.reconstruction.clips import manifest_of_folder, one_by_one, open_clips
from opensora_cli.reconstruction.quality import Quality
from opensora_cli.reconstruction.sample import Measured, as_csv, as_table
from opensora_cli.reconstruction.statistics import RunningMoments, raw_latents, scaling_lines
from opensora_cli.sampling.source import find_source
from opensora_cli.training.draws import keyed_generator
from schemas.autoencoder import DCAEConfig, HunyuanVAEConfig, OpenSoraVAEConfig, VAETemporalConfig
from schemas.errors import OsoraError
from schemas.recipes import VaeSampleRecipe


def latents(number: int, size: int) -> torch.Tensor:
    scales, shifts = torch.tensor([0.1, 2.0, 5.0]), torch.tensor([1000.0, -3.0, 0.0])
    drawn = torch.randn(size, 3, 2, 4, 4, generator=keyed_generator("latents", number), dtype=torch.float64)
    return drawn * scales.view(3, 1, 1, 1) + shifts.view(3, 1, 1, 1)


def test_moments_of_batches_are_those_of_all_together_however_large_the_mean() -> None:
    batches = [latents(number, size) for number, size in enumerate((1, 7, 3, 40))]
    moments = RunningMoments(3)
    for batch in batches:
        moments.add(batch)
    whole = torch.cat(batches).transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean_C, whole.mean(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.variance, whole.var(dim=1, correction=0), rtol=1e-9, atol=0)
    assert moments.count == whole.shape[1]
    assert moments.overall == pytest.approx((float(whole.mean()), float(whole.std(correction=0))), rel=1e-9)


def test_two_stages_have_lines_for_each_channel_and_time_alone_has_none() -> None:
    config = OpenSoraVAEConfig(shift=(1.0, 2.0, 3.0), scale=(2.0, 4.0, 8.0))
    raw = latents(0, 20)
    shift, scale = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1, 1) for values in (config.shift, config.scale)
    )
    moments = RunningMoments(3)
    moments.add(raw_latents(config, (raw - shift) / scale))
    lines = tomllib.loads("\n".join(scaling_lines(config, moments)))["ae"]
    mean, deviation = (torch.tensor(lines[name], dtype=torch.float64).view(3, 1, 1, 1) for name in ("shift", "scale"))
    scaled = (raw - mean) / deviation
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3, 4)), torch.zeros(3, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3, 4)), torch.ones(3, dtype=torch.float64), atol=1e-2, rtol=0)
    assert scaling_lines(VAETemporalConfig(), moments) == []


@pytest.mark.parametrize(
    "config", [HunyuanVAEConfig(scale_factor=0.6, shift_factor=-0.65), DCAEConfig(scaling_factor=3.0)]
)
def test_the_printed_lines_make_latents_a_unit_gaussian(config: HunyuanVAEConfig | DCAEConfig) -> None:
    raw = latents(0, 20) - 300
    moments = RunningMoments(3)
    if isinstance(config, DCAEConfig):
        moments.add(raw_latents(config, raw / config.scaling_factor))
    else:
        moments.add(raw_latents(config, (raw - config.shift_factor) * config.scale_factor))
    lines = tomllib.loads("\n".join(scaling_lines(config, moments)))["ae"]
    if isinstance(config, DCAEConfig):
        scaled = raw / lines["scaling_factor"]
    else:
        scaled = (raw - lines["shift_factor"]) * lines["scale_factor"]
        assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(scaled.std()) == pytest.approx(1.0, rel=1e-3)


def test_a_folder_is_a_table_of_what_can_be_read_in_it(tmp_path: Path) -> None:
    clip = draw_clip(0, 0)
    (tmp_path / "below").mkdir()
    write_mp4(tmp_path / "below" / "b.mp4", clip_frames(clip), clip.fps)
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    (tmp_path / "notes.txt").write_text("left alone")
    with (tmp_path / "log").open("w") as log:
        manifest = manifest_of_folder(tmp_path, Console(file=log, width=200))
    assert len(manifest) == 1
    assert manifest.path(0) == str(tmp_path / "below" / "b.mp4")
    assert (int(manifest.heights[0]), int(manifest.widths[0]), int(manifest.frames[0])) == (*clip.size, clip.frames)
    assert "a.mp4 was skipped" in (tmp_path / "log").read_text()
    (tmp_path / "below" / "b.mp4").unlink()
    with pytest.raises(OsoraError, match="no video or image below this folder can be read"):
        manifest_of_folder(tmp_path, Console(quiet=True))


def test_no_clip_is_left_over_whatever_the_batch_size(tmp_path: Path) -> None:
    clip = replace(draw_clip(0, 0), size=(64, 64))
    for number in range(3):
        write_mp4(tmp_path / f"{number}.mp4", clip_frames(clip), clip.fps)
    recipe = VaeSampleRecipe.model_validate(
        {
            "kind": "vae-sample",
            "dataset": {"data_path": str(tmp_path), "num_workers": 0},
            "buckets": {"64px": {"5": (1.0, 2)}},
        }
    )
    with (tmp_path / "log").open("w") as log:
        loader = open_clips(recipe, Console(file=log, width=200), torch.device("cpu"))
    assert sorted(row for batch in loader.epoch(0) for row in batch.rows) == [0, 1, 2]
    assert "the batch sizes of [buckets] are not used" in (tmp_path / "log").read_text()
    assert one_by_one({"64px": {5: ((0.5, 0.2), 8)}}) == {"64px": {5: ((0.5, 0.2), 1)}}


def test_the_table_has_every_clip_and_their_mean_and_a_terminal_the_worst() -> None:
    rows = [Measured(n, f"clips/{n}.mp4", (5, 64, 64), Quality(20.0 + n, 0.5, None)) for n in range(50)]
    lines = as_csv(rows).splitlines()
    assert len(lines) == 52
    assert lines[1] == "0,clips/0.mp4,5,64,64,20.00,0.5000,"
    assert lines[-1] == "mean,,,,,44.50,0.5000,"
    table = as_table(rows)
    assert table.row_count == 41
    assert "39.mp4" in list(table.columns[1].cells)
    assert "40.mp4" not in list(table.columns[1].cells)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints" / "step-00000009").mkdir(parents=True)
    (tmp_path / "recipe.lock.toml").write_text('kind = "vae-train"\nepochs = 3\n[discriminator]\nndf = 4\n')
    return tmp_path


def test_a_run_that_trained_an_autoencoder_is_a_source_of_reconstructions(run: Path) -> None:
    source = find_source(str(run), kind="vae-sample")
    newest = str(run / "checkpoints" / "step-00000009")
    assert list(source.injected.values()) == [{"kind": "vae-sample", "ae": {"from_pretrained": newest}}]
    assert source.unsets == ["epochs", "discriminator"]


def test_a_run_that_trained_a_denoiser_is_none(run: Path) -> None:
    (run / "recipe.lock.toml").write_text('kind = "train"\n')
    with pytest.raises(OsoraError, match=r"this run trained a denoiser\. Give a recipe for vae-stats"):
        find_source(str(run), kind="vae-stats")
