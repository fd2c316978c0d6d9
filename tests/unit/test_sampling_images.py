"""Text to image to video with tiny random models: the image is the first frame, and is there beside the clip."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.planning.plan import Target, make_plan
from opensora_cli.sampling import Pipeline, Request, batches, image_stage, pipeline
from opensora_cli.sampling.generate import Generator
from opensora_cli.sampling.image_recipe import image_settings
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe
from schemas.resolve import resolve

NO_WEIGHTS = ["model.from_pretrained", "ae.from_pretrained"]
PROMPTS = ("a red circle", "a blue square", "a green star")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    prepare_demo(folder / "demo", clips=2, seed=0)
    return folder


def new_pipeline(demo: Path, save_dir: Path, *sets: str, recipe: str = "tiny/t2i2v") -> Pipeline:
    text = [f'text.{name}.from_pretrained="{demo / "demo" / name}"' for name in ("t5", "clip")]
    quick = ("num_steps=2", "num_frames=5", "resolution=48px", f'save_dir="{save_dir}"')
    return Pipeline.from_recipe(
        recipe, sets=[*text, *(f"sampling.{one}" for one in (*quick, *sets))], unsets=NO_WEIGHTS
    )


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("sample-*") if path.suffix != ".json"}


def test_image_and_clip_are_written_whatever_the_batch(demo: Path, tmp_path: Path) -> None:
    for size in (1, 3):
        new_pipeline(demo, tmp_path / str(size), f"batch_size={size}").run(Request(PROMPTS))
    one, three = written(tmp_path / "1"), written(tmp_path / "3")
    assert sorted(one) == sorted(f"sample-000{row}{end}" for row in range(3) for end in ("-image.png", ".mp4"))
    assert one == three
    assert len(set(one.values())) == 6
    record = json.loads((tmp_path / "1" / "sample-0001.json").read_text())
    assert (record["seed"], record["condition"], record["t2i2v"]["img_guidance"]) == (43, "i2v_head", 3.0)
    assert record["weights"]["t2i2v.img_flux"] is None
    image = record["image"]
    assert {key: image[key] for key in ("file", "seed", "width", "height", "guidance", "evaluations")} == {
        "file": "sample-0001-image.png", "seed": 43, "width": 128, "height": 128, "guidance": 3.0, "evaluations": 2
    }  # fmt: skip
    assert {"load", "denoise", "decode"} <= image["seconds"].keys()
    with Image.open(tmp_path / "1" / "sample-0001-image.png") as file:
        assert file.size == (128, 128)


def test_the_clip_is_the_one_that_the_saved_image_would_give_as_a_reference(demo: Path, tmp_path: Path) -> None:
    (made,) = new_pipeline(demo, tmp_path)("a ball", negative="grey")
    assert made.image is not None
    reference = made.image.save(tmp_path / "first.png")
    given = new_pipeline(demo, tmp_path, "cond_type=i2v_head", recipe="tiny/sample")
    (again,) = given("a ball", negative="grey", references=reference)
    assert torch.equal(made.video, again.video)
    assert (made.sample.needs_image, again.sample.needs_image, again.image) == (True, False, None)


def test_the_image_models_are_gone_when_the_video_models_come(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[torch.nn.Module]] = []
    load = image_stage.load_models

    def loaded(recipe: SampleRecipe, *rest: object) -> Generator:
        gc.collect()
        assert [one for one in alive if one() is not None] == [], "the models of the other stage are still there"
        models = load(recipe, *rest)  # type: ignore[arg-type]
        alive.append(weakref.ref(models.denoiser))
        return models

    for module in (image_stage, pipeline):
        monkeypatch.setattr(module, "load_models", loaded)
    job = new_pipeline(demo, tmp_path)
    for _ in range(2):
        job("a ball", num_steps=1)
    assert len(alive) == 4


def test_rows_have_images_of_their_own_shape_and_one_that_fails_fails_alone(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = batches.generate

    def small(models: Generator, config: object, size: tuple[int, int], *rest: object) -> object:
        if config.num_frames == 1 and size[0] > size[1]:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return generate(models, config, size, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(batches, "generate", small)
    (tmp_path / "rows.csv").write_text("text,height,width,aspect_ratio\na,32,64,\nb,64,32,\nc,,,16:9\n")
    job = new_pipeline(demo, tmp_path / "out")
    with pytest.raises(
        OsoraError, match=r"1 of 3 samples failed, the others are written:\n  sample 1: not enough memory"
    ):
        job.run(Request(prompts_file=tmp_path / "rows.csv"))
    monkeypatch.undo()
    sizes = {}
    for path in (tmp_path / "out").glob("*-image.png"):
        with Image.open(path) as file:
            sizes[path.name] = file.size
    assert sizes == {"sample-0000-image.png": (176, 80), "sample-0002-image.png": (160, 96)}

    before = written(tmp_path / "out")
    (tmp_path / "out" / "sample-0002-image.png").unlink()
    job.run(Request(prompts_file=tmp_path / "rows.csv"), resume=True)
    after = written(tmp_path / "out")
    assert after.keys() - before.keys() == {"sample-0001-image.png", "sample-0001.mp4"}
    assert before.items() <= after.items()


def test_references_are_refused(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--ref a.png: \[t2i2v\]: the image model makes the first frame"):
        new_pipeline(demo, tmp_path).run(Request(("a",), references=("a.png",)))


def test_steps_and_schedule_are_the_clips() -> None:
    recipe = resolve("sample/t2i2v_768px", sets=["sampling.num_steps=7", 'sampling.aspect_ratio="9:16"']).recipe
    assert isinstance(recipe, SampleRecipe)
    config = image_settings(recipe, recipe.sampling)
    assert (config.num_frames, config.num_steps, config.guidance, config.cond_type) == (1, 7, 4.0, "t2v")
    assert (config.resolution, config.aspect_ratio) == ("768px", "9:16")


def test_the_plan_counts_the_larger_stage() -> None:
    peaks = {}
    for depth in (1, 40):
        recipe = resolve("tiny/t2i2v", sets=[f"t2i2v.img_flux.depth={depth}"]).recipe
        (shape,) = make_plan(recipe, Target(1)).shapes
        peaks[depth] = shape.cost
    assert not peaks[1].moment.startswith("the first frames")
    assert peaks[40].moment.startswith("the first frames: ")
    assert peaks[40].peak > peaks[1].peak
