"""`osora vae-train` against a discriminator, `vae-sample` and `vae-stats` on what it trained."""

import csv
import json
import subprocess
import tomllib
from pathlib import Path

import av
import pytest

from tests.cli.conftest import OSORA, Osora, environment

GAN = [
    "discriminator.ndf=4", "discriminator.n_layers=2", "discriminator.disc_loss.disc_start=1",
    "discriminator.gen_loss.gen_start=2", "mixed_strategy=mixed_video_image", "mixed_image_ratio=0.3",
    "memory.grad_checkpoint=true", "optim.lr=1e-5", "optim.warmup_steps=1", "optim.ema_decay=0.9",
    "max_steps=4", "validation.data_path=demo/meta.csv", "validation.every=2", "validation.num_samples=2",
]  # fmt: skip
ALONE = ["dataset.num_workers=0"]


def sets(values: list[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four updates, with everything that autoencoder training has."""
    outputs = tmp_path_factory.mktemp("vae")
    command = [str(OSORA), "vae-train", "tiny/vae", *sets([*GAN, *ALONE, f"outputs={outputs}"])]
    done = subprocess.run(command, cwd=prepared, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = outputs.iterdir()
    return folder


def test_a_run_records_both_sides_and_the_held_out_clips(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ["adversary_loss" in record for record in records] == [False, True, True, True]
    assert ["deception" in record for record in records] == [False, False, True, True]
    assert records[-1]["adversary_lr"] > 0
    looks = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [look["step"] for look in looks] == [2, 4]
    assert set(looks[0]) == {"step", "psnr_db", "ssim"}
    events = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    assert b"validation/clip-1" in events and b"validation/psnr_db" in events
    exports = {path.name for path in (run / "checkpoints" / "step-00000004").glob("*.safetensors")}
    assert exports == {"model.safetensors", "ema.safetensors", "adversary.safetensors"}


def test_clips_of_a_folder_are_reconstructed_side_by_side_with_a_table(
    run: Path, prepared: Path, osora: Osora, tmp_path: Path
) -> None:
    command = ["vae-sample", run, "--ema", "--data", prepared / "demo" / "clips", "--save-dir", "out", *sets(ALONE)]
    done = osora(*command, "--num-samples", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "out" / "quality.csv").open(newline="") as file:
        *rows, mean = csv.DictReader(file)
    assert len(rows) == 3
    assert mean["clip"] == "mean"
    assert float(mean["psnr_db"]) == pytest.approx(sum(float(row["psnr_db"]) for row in rows) / 3, abs=0.01)
    assert mean["psnr_db"] in done.stdout
    assert "LPIPS is not measured" in done.stdout
    for row in rows:
        with av.open(str(tmp_path / "out" / f"clip-{int(row['clip']):06d}.mp4")) as file:
            shapes = [frame.to_ndarray(format="rgb24").shape for frame in file.decode(video=0)]
        assert shapes == [(int(row["height"]), 2 * int(row["width"]), 3)] * int(row["frames"])
    again = osora(*command)
    assert again.returncode == 1
    assert "quality.csv exists already" in again.stderr


def test_the_latents_of_a_run_give_the_lines_for_a_recipe(run: Path, prepared: Path, osora: Osora) -> None:
    done = osora("vae-stats", run, "--data", prepared / "demo" / "meta.csv", "--num-samples", "4", *sets(ALONE))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = tomllib.loads(done.stdout[done.stdout.index("[ae]") :])
    assert set(lines["ae"]) == {"scale_factor", "shift_factor"}


def test_a_perceptual_loss_without_its_weights_stops_before_training(prepared: Path, osora: Osora) -> None:
    done = osora("vae-train", "tiny/vae", *sets(["vae_loss.perceptual_loss_weight=0.5"]), cwd=prepared)
    assert done.returncode == 1
    assert "vae_loss.lpips_from_pretrained = './ckpts/lpips_vgg16.safetensors': no LPIPS weights here" in done.stderr


def test_the_two_stages_of_the_earlier_families_train_reconstruct_and_are_measured(
    prepared: Path, osora: Osora, tmp_path: Path
) -> None:
    short = [
        "max_steps=2", "optim.warmup_steps=0", "memory.grad_checkpoint=true", "checkpoint.every=2",
        "ae.freeze_vae_2d=true", *ALONE,
    ]  # fmt: skip
    trained = osora("vae-train", "tiny/vae_stages", *sets([*short, f"outputs={tmp_path / 'runs'}"]), cwd=prepared)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["rebuilt"] > 0
    command = ["--data", prepared / "demo" / "meta.csv", "--num-samples", "2", *sets(ALONE)]
    done = osora("vae-sample", folder, "--save-dir", "out", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "out" / "quality.csv").open(newline="") as file:
        assert {row["frames"] for row in csv.DictReader(file)} == {"10", ""}
    done = osora("vae-stats", folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = tomllib.loads(done.stdout[done.stdout.index("[ae]") :])["ae"]
    assert (len(lines["shift"]), len(lines["scale"])) == (4, 4)
