"""`osora sample` as a user runs it, with untrained tiny models."""

import json
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.training.draws import seeded_init
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.weights import save_weights
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve
from tests.cli.conftest import Osora

CHECKPOINT = "run/checkpoints/step-00000020"
QUICK = ("--num-steps", "2", "--num-frames", "9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text encoders, an autoencoder, and a run folder with one checkpoint of an untrained denoiser."""
    folder = tmp_path_factory.mktemp("sample")
    prepare_demo(folder / "demo", clips=2, seed=0)
    resolved = resolve("tiny/train")
    recipe = resolved.recipe
    assert isinstance(recipe, TrainRecipe)
    (folder / CHECKPOINT).mkdir(parents=True)
    (folder / "run" / "recipe.lock.toml").write_text(resolved.lock())
    with seeded_init(1):
        model, autoencoder = build_denoiser(recipe.model), build_autoencoder(recipe.ae)
    save_weights(model.state_dict(), folder / CHECKPOINT / "model.safetensors")
    save_weights({k: v + 0.01 for k, v in model.state_dict().items()}, folder / CHECKPOINT / "ema.safetensors")
    save_weights(autoencoder.state_dict(), folder / "demo" / "vae.safetensors")
    Image.new("RGB", (100, 80), (200, 30, 30)).save(folder / "red.png")
    return folder


def shape_of(path: Path) -> tuple[int, int, int, float]:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.average_rate is not None
        return sum(1 for _ in file.decode(stream)), stream.height, stream.width, float(stream.average_rate)


def test_clips_records_and_sheet_are_written_repeated_and_resumed(folder: Path, osora: Osora) -> None:
    command = (
        "sample", CHECKPOINT, "--prompt", 'a "red" circle', "--prompt", "a square", *QUICK, "--seed", "7",
        "--set", "sampling.height=48", "--set", "sampling.width=64", "--set", "sampling.fps_save=8",
    )  # fmt: skip
    done = osora(*command, "--save-dir", "a", cwd=folder)
    assert done.returncode == 0, done.stderr
    for name in ("a/sample-0000.mp4", "a/sample-0001.json", "contact sheet: a/contact-sheet.png"):
        assert name in done.stdout
    assert [shape_of(folder / "a" / f"sample-000{i}.mp4") for i in (0, 1)] == [(9, 48, 64, 8.0)] * 2
    records = [json.loads((folder / "a" / f"sample-000{i}.json").read_text()) for i in (0, 1)]
    assert [(record["prompt"], record["seed"]) for record in records] == [('a "red" circle', 7), ("a square", 8)]
    assert records[0]["evaluations"] == 4
    assert records[0]["weights"]["model"] == f"{CHECKPOINT}/model.safetensors"
    assert records[0]["versions"]["torch"] == torch.__version__

    again = osora(*command, "--save-dir", "a", cwd=folder)
    assert again.returncode == 1
    assert "a/sample-0000.mp4 exists already" in again.stderr

    before = [(folder / "a" / f"sample-000{i}.mp4").read_bytes() for i in (0, 1)]
    (folder / "a" / "sample-0001.json").unlink()
    resumed = osora(*command, "--save-dir", "a", "--resume", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 of 2 samples are finished already" in resumed.stdout
    assert [(folder / "a" / f"sample-000{i}.mp4").read_bytes() for i in (0, 1)] == before


def test_a_training_run_samples_from_its_newest_weights_and_an_image(folder: Path, osora: Osora) -> None:
    options = ("--prompt", "a circle", *QUICK, "--resolution", "64px", "--aspect-ratio", "1:1", "--guidance", "2")
    for extra, name in (((), "model"), (("--ema",), "ema")):
        done = osora(
            "sample", "run", *options, *extra, "--cond", "i2v_head", "--ref", "red.png", "--save-dir", name, cwd=folder
        )
        assert done.returncode == 0, done.stderr
        record = json.loads((folder / name / "sample-0000.json").read_text())
        assert record["weights"]["model"] == f"{CHECKPOINT}/{name}.safetensors"
        assert (record["condition"], record["references"]) == ("i2v_head", ["red.png"])
        assert record["sampling"]["guidance"] == 2.0
        assert record["evaluations"] == 6
    assert (folder / "model" / "sample-0000.mp4").read_bytes() != (folder / "ema" / "sample-0000.mp4").read_bytes()


def test_the_recipe_written_beside_the_samples_runs_again(folder: Path, osora: Osora) -> None:
    first = osora("sample", "run", "--prompt", "a circle", "--num-frames", "1", "--num-steps", "2", "--resolution",
                  "64px", "--save-dir", "image", cwd=folder)  # fmt: skip
    assert first.returncode == 0, first.stderr
    second = osora("sample", "image/recipe.lock.toml", "--prompt", "a circle", "--save-dir", "image2", cwd=folder)
    assert second.returncode == 0, second.stderr
    images = [folder / name / "sample-0000.png" for name in ("image", "image2")]
    assert images[0].read_bytes() == images[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--num-frames", "50", "--prompt", "a"), 1, "4k+1"),
        ((), 2, "no prompt"),
        (("--prompt", "a", "--cond", "i2v_head", "--ref", "no.png"), 1, "no.png: there is no such file"),
        (("--prompt", "a", "--set", "model.from_pretrained=no.pt"), 1, "model.from_pretrained = 'no.pt': there"),
        (("--prompt", "a", "--num-frames", "37", "--cond", "v2v_head", "--ref", "demo/clips/0000.mp4"), 1, "33 frames"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_models_are_loaded(
    folder: Path, osora: Osora, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = osora("sample", "run", *arguments, "--save-dir", "never", cwd=folder)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "never").exists()
