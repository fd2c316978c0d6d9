"""Every family of Open-Sora 1.x goes the whole way: it learns clips by heart, resumes to the bit, and samples."""

import json
import shutil
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from rich.console import Console

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.distributed.process import Process
from opensora_cli.sampling.pipeline import Pipeline
from opensora_cli.sampling.request import Request
from opensora_cli.training.job import train_one
from opensora_models.weights import read_weights
from schemas.denoiser import LatentDenoiser
from schemas.recipes import TrainRecipe
from schemas.resolve import RecipeError, resolve
from schemas.resolve.fields import tables_of
from schemas.resolve.resolved import Resolved

FAMILIES = {
    member.model_fields["type"].default: member
    for member in tables_of(TrainRecipe.model_fields["model"].annotation)
    if issubclass(member, LatentDenoiser)
}
UPDATES = 20
SMALL = ("model.hidden_size=48", "model.depth=2", "optim.warmup_steps=1", "optim.lr=4e-3", "checkpoint.every=10")
ALONE = Process(0, 1, torch.device("cpu"))
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two clips, and the demo's text encoders beside it."""
    folder = tmp_path_factory.mktemp("clips") / "demo"
    prepare_demo(folder, clips=2, seed=1)
    return folder


def recipe_of(family: str, clips: Path, *sets: str) -> Resolved:
    return resolve(
        f"tiny/{family}",
        sets=[
            f"dataset.data_path={clips}/meta.csv",
            "dataset.num_workers=0",
            *(f"text.{name}.from_pretrained={clips}/{name}" for name in ("t5", "clip")),
            "dataset.rules=open-sora-1.2",
            'buckets={"32x32"={9=[1.0, 2]}}',
            f"max_steps={UPDATES}",
            *SMALL,
            *sets,
        ],
        unsets=["ae.from_pretrained", "optim.ema_decay", 'buckets."64px"'],
    )


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=list(FAMILIES))
def trained(request: pytest.FixtureRequest, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family's name, and the run folder in which it was trained."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp(request.param) / "run"
    assert train_one(recipe_of(request.param, clips), ALONE, QUIET, place=run) == 0
    return request.param, run


def test_the_loss_falls_on_clips_seen_again_and_again(trained: tuple[str, Path]) -> None:
    found = losses(trained[1])
    assert len(found) == UPDATES
    assert sum(found[-5:]) < 0.8 * sum(found[:5])


def test_resuming_repeats_the_run_to_the_bit(trained: tuple[str, Path], clips: Path, tmp_path: Path) -> None:
    family, run = trained
    again = tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / f"step-{UPDATES:08d}")
    lines = (again / "metrics.jsonl").read_text().splitlines(keepends=True)
    (again / "metrics.jsonl").write_text("".join(lines[: UPDATES // 2]))
    assert train_one(recipe_of(family, clips), ALONE, QUIET, place=again) == 0
    want, got = (read_weights(folder / f"checkpoints/step-{UPDATES:08d}/model.safetensors") for folder in (run, again))
    assert want.keys() == got.keys()
    assert all(torch.equal(want[key], got[key]) for key in want)
    assert losses(again) == losses(run)


def test_samples_of_a_run_become_files(trained: tuple[str, Path], tmp_path: Path) -> None:
    family, run = trained
    frames = 1 if family in ("dit", "pixart") else 9
    steps = ["sampling.num_steps=3", f"sampling.num_frames={frames}", f"sampling.save_dir={tmp_path}"]
    solver = ["sampling.solver=ddim"] if recipe_type(run) == "iddpm" else []
    size = ["sampling.height=32", "sampling.width=32", "sampling.motion_score=none"]
    files = Pipeline.from_recipe(run, sets=[*steps, *solver, *size]).run(Request(prompts=("a red disc",)))
    if frames == 1:
        with Image.open(files[0]) as picture:
            assert picture.size == (32, 32)
    else:
        assert frames_of(files[0]) == frames


def recipe_type(run: Path) -> str:
    """Return the diffusion that a run was trained by."""
    recipe = resolve(run / "recipe.lock.toml").recipe
    assert isinstance(recipe, TrainRecipe)
    return recipe.diffusion.type


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture(scope="module")
def stdit3(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of STDiT3."""
    run = tmp_path_factory.mktemp("stdit3") / "run"
    sets = ("max_steps=2", "checkpoint.every=2")
    assert train_one(recipe_of("stdit3", clips, *sets), ALONE, QUIET, place=run) == 0
    return run


SAMPLED = (
    "sampling.num_steps=2",
    "sampling.num_frames=9",
    "sampling.height=32",
    "sampling.width=32",
    "sampling.motion_score=none",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture of a slope from black to white."""
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "slope.png")
    return tmp_path / "slope.png"


def test_a_given_image_is_kept(stdit3: Path, image: Path) -> None:
    pipeline = Pipeline.from_recipe(stdit3, sets=SAMPLED)
    (plain,) = pipeline("a red disc")
    (given,) = pipeline("a red disc", references=image, cond_type="i2v_head")
    (strategy,) = pipeline("a red disc", references=image, mask_strategy="0,0,0,0,1")
    assert not torch.equal(plain.video, given.video)
    assert torch.equal(given.video, strategy.video)
    (edited,) = pipeline("a red disc", references=image, mask_strategy="0,0,0,0,1,0.9")
    assert not torch.equal(edited.video, given.video)


def test_a_long_clip_goes_on_from_the_end_of_each_part(stdit3: Path) -> None:
    pipeline = Pipeline.from_recipe(stdit3, sets=SAMPLED)
    options = {"loop": 3, "condition_frame_length": 1}
    (long,) = pipeline("|0| a red disc |2| a blue square", **options)
    (short,) = pipeline("a red disc")
    assert long.video.shape[1] == 9 + 2 * (9 - 1)
    assert torch.equal(long.video[:, :9], short.video)
    (other,) = pipeline("|0| a red disc |2| a green bar", **options)
    assert torch.equal(long.video[:, :17], other.video[:, :17])
    assert not torch.equal(long.video[:, 17:], other.video[:, 17:])
    assert long.evaluations == 3 * short.evaluations


def test_a_sample_does_not_depend_on_its_batch(stdit3: Path) -> None:
    alone = Pipeline.from_recipe(stdit3, sets=SAMPLED)("a red disc")[0].video
    together = Pipeline.from_recipe(stdit3, sets=[*SAMPLED, "sampling.batch_size=2"])
    assert torch.equal(together(["a red disc", "a blue square"])[0].video, alone)


def test_denoisers_that_take_no_frames_refuse_clips_in_a_row(trained: tuple[str, Path]) -> None:
    family, run = trained
    if not FAMILIES[family]().takes_frames:
        with pytest.raises(RecipeError, match="OSR136"):
            Pipeline.from_recipe(run, sets=[*SAMPLED, "sampling.solver=ddim", "sampling.loop=2"])
