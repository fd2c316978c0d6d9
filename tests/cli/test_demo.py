"""What a newcomer sees after the one command."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Osora


def frames_of(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), rate


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_the_demo_leaves_clips_of_the_size_length_and_speed_asked_for(demo: Path) -> None:
    samples = sorted((demo / "demo" / "samples").rglob("*.mp4"))
    assert len(samples) >= 2
    for path in samples:
        frames, rate = frames_of(path)
        assert frames.shape == (17, 64, 64, 3)
        assert rate == 8
        record = json.loads(path.with_suffix(".json").read_text())
        assert record["prompt"]
        assert record["seed"] >= 0


def test_the_demo_says_where_everything_is(demo: Path) -> None:
    said = (demo / "stdout.txt").read_text()
    paths = [word for word in said.split() if word.startswith("demo/")]
    for suffix in (".mp4", "contact-sheet.png", "tensorboard"):
        found = [path for path in paths if path.endswith(suffix)]
        assert found, suffix
        assert all((demo / path).exists() for path in found)


def test_image_to_video_starts_with_the_image(demo: Path, osora: Osora, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny autoencoder that the demo trained is all that lies between the reference and the first frame."""
    clip = sorted((demo / "demo" / "clips").glob("*.mp4"))
    reference = next(frames[0] for frames, _ in map(frames_of, clip) if frames.shape[1:3] == (64, 64))
    Image.fromarray(reference).save(demo / "reference.png")
    done = osora(
        "sample", "tiny/sample", "--prompt", "a red circle moves right", "--cond", "i2v_head",
        "--ref", "reference.png", "--num-steps", "4", "--save-dir", "i2v", cwd=demo,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (demo / "i2v").glob("*.mp4")
    first = frames_of(path)[0][0]
    figure = psnr(first, reference)
    shuffled = psnr(first, np.roll(reference, 32, axis=1))
    with capsys.disabled():
        print(f"\ni2v_head: first frame against the reference: PSNR {figure:.1f} dB")
    assert figure > 18
    assert figure > shuffled + 3


def test_the_same_seed_gives_the_same_file(demo: Path, osora: Osora) -> None:
    for folder in ("once", "again"):
        done = osora(
            "sample", "tiny/sample", "--prompt", "a blue square moves up", "--num-steps", "3",
            "--save-dir", folder, "--seed", "7", cwd=demo,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (first,), (second,) = ((demo / folder).glob("*.mp4") for folder in ("once", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_folder_can_be_sampled_as_it_is(demo: Path, osora: Osora) -> None:
    (run,) = (demo / "demo" / "runs").glob("*-train")
    done = osora(
        "sample", run, "--prompt", "a green square", "--num-frames", "9", "--resolution", "64px",
        "--aspect-ratio", "1:1", "--num-steps", "2", "--save-dir", "from-run", cwd=demo,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (demo / "from-run").glob("*.mp4")
    assert frames_of(path)[0].shape == (9, 64, 64, 3)
