import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from opensora_cli.reconstruction.sample import ODD_SIDES
from opensora_cli.sampling import saving
from opensora_cli.sampling.contact_sheet import TILE_WIDTH, write_contact_sheet
from opensora_cli.sampling.outputs import Output, identity, outputs_to_make, plan_outputs
from opensora_cli.sampling.request import Request, plan_samples
from opensora_cli.sampling.saving import to_frames, write_sample, write_video
from opensora_cli.sampling.source import find_source
from opensora_cli.sampling.weights import find_weights
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig

NO_WEIGHTS: dict[str, str | None] = {"model": None, "ae": None}


def clip(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """A bright square that moves over a dark ground."""
    video = torch.full((3, frames, height, width), -0.5)
    for frame in range(frames):
        video[0, frame, 8:24, 2 * frame : 2 * frame + 16] = 0.5
    return video


@pytest.mark.parametrize(("frames", "fps"), [(9, 24), (17, 8), (2, 60)])
def test_a_clip_has_exactly_the_size_frames_and_speed_asked_for(tmp_path: Path, frames: int, fps: int) -> None:
    path = write_sample(tmp_path / "clip.mp4", clip(frames), fps)
    assert path == tmp_path / "clip.mp4"
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == fps
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    assert np.stack(pictures).shape == (frames, 48, 64, 3)
    error = np.abs(np.stack(pictures).astype(int) - to_frames(clip(frames)))
    assert error.mean() < 4
    assert [one.name for one in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_single_frame_is_a_png_without_loss(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "image.png", clip(1), 24)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), to_frames(clip(1))[0])


def test_pixels_outside_the_range_are_clamped() -> None:
    frames = to_frames(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0]).view(1, 1, 1, 5))
    assert frames.flatten().tolist() == [0, 0, 128, 255, 255]


def test_odd_sides_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"needs even sides, the frames are 47 x 64"):
        write_sample(tmp_path / "clip.mp4", clip(3, height=47), 24)
    with pytest.raises(OsoraError) as caught:  # sampling's key is not vae-sample's
        write_sample(tmp_path / "clip.mp4", clip(3, height=47), 24, odd_sides=ODD_SIDES)
    assert "[buckets]" in str(caught.value) and "sampling." not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reason", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_nothing_and_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: type[BaseException]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"old")
    from_ndarray, made = av.VideoFrame.from_ndarray, []

    class Failing:
        @staticmethod
        def from_ndarray(*args: object, **options: object) -> av.VideoFrame:
            made.append(args)
            if len(made) == 3:
                raise reason
            return from_ndarray(*args, **options)

    monkeypatch.setattr(saving.av, "VideoFrame", Failing)
    with pytest.raises(reason):
        write_video(tmp_path / "clip.mp4", to_frames(clip(9)), 24)
    assert [one.name for one in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"old"


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OsoraError, match=r"cannot write .*clip.mp4.*choose another sampling.save_dir"):
        write_sample(tmp_path / "file" / "clip.mp4", clip(3), 24)


def test_the_contact_sheet_has_a_row_for_each_sample(tmp_path: Path) -> None:
    video, image = write_sample(tmp_path / "a.mp4", clip(9), 24), write_sample(tmp_path / "b.png", clip(1), 24)
    sheet = write_contact_sheet(tmp_path / "contact-sheet.png", [(video, "a cat " * 400), (image, "käse")])
    with Image.open(sheet) as page:
        pixels = np.asarray(page)
    tile_height = TILE_WIDTH * 48 // 64
    assert pixels.shape[1] > 6 * TILE_WIDTH
    assert pixels.shape[0] > 2 * tile_height
    assert (pixels[:tile_height] > 100).any()
    assert (pixels[-40:, :TILE_WIDTH] > 200).any()  # the second caption


def recipe(save_dir: Path, **sampling: object) -> SampleRecipe:
    return SampleRecipe(kind="sample", sampling=SamplingConfig(save_dir=str(save_dir), **sampling))


def planned(made: SampleRecipe, *prompts: str) -> list[Output]:
    return plan_outputs(plan_samples(Request(prompts), made), Path(made.sampling.save_dir))


def finish(output: Output, made: SampleRecipe) -> None:
    output.media.write_bytes(b"clip")
    output.record.write_text(json.dumps(identity(output.sample, made, NO_WEIGHTS)))


def test_resume_makes_what_is_missing_and_overwrite_makes_all(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    outputs = planned(made, "a", "b", "c")
    finish(outputs[0], made)
    outputs[1].media.write_bytes(b"no record: it was interrupted")
    missing = outputs_to_make(outputs, made, NO_WEIGHTS, overwrite=False, resume=True)
    assert [output.sample.prompt for output in missing] == ["b", "c"]
    assert outputs_to_make(outputs, made, NO_WEIGHTS, overwrite=True, resume=False) == outputs
    with pytest.raises(OsoraError, match=r"sample-0000.mp4 exists already \(3 such files\).*--overwrite"):
        outputs_to_make(outputs, made, NO_WEIGHTS, overwrite=False, resume=False)


def test_resume_refuses_samples_of_something_else(tmp_path: Path) -> None:
    before = recipe(tmp_path)
    finish(planned(before, "a")[0], before)
    after = recipe(tmp_path, num_steps=7)
    with pytest.raises(OsoraError, match=r"sample-0000.json was made with another prompt, sampling"):
        outputs_to_make(planned(after, "z"), after, NO_WEIGHTS, overwrite=False, resume=True)


def test_a_larger_batch_or_more_samples_may_resume(tmp_path: Path) -> None:
    before = recipe(tmp_path)
    finish(planned(before, "a")[0], before)
    after = recipe(tmp_path, batch_size=2, num_samples=3)
    missing = outputs_to_make(planned(after, "a"), after, NO_WEIGHTS, overwrite=False, resume=True)
    assert [output.media.name for output in missing] == ["sample-0000_1.mp4", "sample-0000_2.mp4"]


def test_overwrite_and_resume_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        outputs_to_make([], recipe(tmp_path), NO_WEIGHTS, overwrite=True, resume=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step, files in ((9, ("model.safetensors",)), (20, ("model.safetensors", "ema.safetensors"))):
        folder = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()
    (tmp_path / "run" / "checkpoints" / ".step-00000030.partial").mkdir()
    lock = 'kind = "train"\nseed = 3\ndtype = "fp32"\n[optim]\nlr = 1e-4\n[model]\ndepth = 2\n'
    (tmp_path / "run" / "recipe.lock.toml").write_text(lock)
    return tmp_path / "run"


def test_weights_of_a_run_are_those_of_its_newest_checkpoint(run: Path) -> None:
    newest = run / "checkpoints" / "step-00000020"
    assert find_weights(str(run), "model.from_pretrained") == newest / "model.safetensors"
    assert find_weights(str(newest), "model.from_pretrained", ema=True) == newest / "ema.safetensors"
    assert find_weights(str(newest / "ema.safetensors"), "model.from_pretrained") == newest / "ema.safetensors"


def test_missing_weights_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"model.from_pretrained = .*no.pt': there are no weights here"):
        find_weights(str(tmp_path / "no.pt"), "model.from_pretrained")
    with pytest.raises(OsoraError, match=r"--ema: .*step-00000009 has no ema.safetensors"):
        find_weights(str(run / "checkpoints" / "step-00000009"), "model.from_pretrained", ema=True)


def test_a_training_run_is_a_source_of_samples(run: Path) -> None:
    newest = run / "checkpoints" / "step-00000020"
    source = find_source(str(run))
    assert source.recipe == str(run / "recipe.lock.toml")
    assert source.unsets == ["seed", "optim"]
    assert list(source.injected.values()) == [{"kind": "sample", "model": {"from_pretrained": str(newest)}}]
    assert find_source(str(run / "recipe.lock.toml")) == source
    older = find_source(str(run / "checkpoints" / "step-00000009"))
    assert next(iter(older.injected.values()))["model"]["from_pretrained"].endswith("step-00000009")


def test_weights_that_the_user_names_win(run: Path) -> None:
    source = find_source(str(run), ["model.from_pretrained=other.safetensors"])
    assert list(source.injected.values()) == [{"kind": "sample"}]


def test_a_name_or_another_recipe_stays_as_it_is(tmp_path: Path) -> None:
    assert find_source("tiny/sample").recipe == "tiny/sample"
    assert find_source(str(tmp_path / "mine.toml")).injected == {}


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match="neither a run folder"):
        find_source(str(tmp_path))


def test_a_run_that_trained_an_autoencoder_says_how_to_use_it(run: Path) -> None:
    (run / "recipe.lock.toml").write_text('kind = "vae-train"\n')
    with pytest.raises(OsoraError, match=r"trained an autoencoder.*--set ae.from_pretrained=.*step-00000020"):
        find_source(str(run))
