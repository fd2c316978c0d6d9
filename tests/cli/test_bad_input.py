"""Wrong input: a clear message, a code that is not zero, nothing half-written, and all of it before a model is built."""

import csv
import json
import resource
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import OSORA, Osora, environment


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def train(osora: Osora, prepared: Path, outputs: Path):  # type: ignore[no-untyped-def]
    """Run `osora train tiny/train` on the prepared clips with an untrained autoencoder, and more options."""

    def run(*options: object) -> subprocess.CompletedProcess[str]:
        base = ("--unset", "ae.from_pretrained", "--set", f"outputs={outputs}", "--set", "max_steps=2")
        return osora("train", "tiny/train", *base, "--set", "optim.warmup_steps=0", *options, cwd=prepared)

    return run


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str, code: int = 1) -> None:
    said = " ".join(done.stderr.split())
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in said, f"{part!r} is not in {said!r}"


def test_an_unknown_key_names_the_key_that_was_meant(train, outputs: Path) -> None:  # type: ignore[no-untyped-def]
    done = train("--set", "model.depht=3")
    assert_refused(done, "<command line>", "OSR001", "unknown key `model.depht`", "Did you mean `depth`?")
    assert not outputs.exists()


def test_a_missing_data_file(train, outputs: Path) -> None:  # type: ignore[no-untyped-def]
    assert_refused(train("--set", "dataset.data_path=nowhere.csv"), "nowhere.csv", "osora meta")
    assert not outputs.exists()


def test_a_table_without_paths(train, outputs: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = tmp_path / "table.csv"
    table.write_text("file,text\na.mp4,a clip\n")
    assert_refused(train("--set", f"dataset.data_path={table}"), "path", "file, text")
    assert not outputs.exists()


def test_meta_on_a_table_without_paths(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("file,text\na.mp4,a clip\n")
    assert_refused(osora("meta", "table.csv", "out.csv"), "table.csv", "path", "file, text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.csv"]


def test_a_bucket_that_no_clip_fits(train, outputs: Path) -> None:  # type: ignore[no-untyped-def]
    done = train("--set", 'buckets={_delete_ = true, "1024px" = {129 = [1.0, 1]}}')
    assert_refused(done, "none of 12 clips fits a bucket", "too few pixels")
    assert not outputs.exists()


def test_a_batch_that_is_larger_than_its_bucket(train, outputs: Path) -> None:  # type: ignore[no-untyped-def]
    done = train("--set", 'buckets."64px".17=[1.0, 99]')
    assert_refused(done, "no bucket has enough clips for one batch", "batch size 99", "Lower the batch sizes")
    assert not outputs.exists()


def test_a_checkpoint_of_another_size(train, outputs: Path, prepared: Path) -> None:  # type: ignore[no-untyped-def]
    assert train().returncode == 0
    (run,) = outputs.iterdir()
    weights = run / "checkpoints" / "step-00000002" / "model.safetensors"
    done = train("--set", f"model.from_pretrained={weights}", "--set", "model.depth=3", "--set", "model.vec_in_dim=48")
    assert_refused(done, "model.safetensors", "double_blocks.2", "model.depth")
    assert list(outputs.iterdir()) == [run]


def test_a_reference_image_that_is_not_there(demo: Path, osora: Osora) -> None:
    done = osora(
        "sample", "tiny/sample", "--prompt", "a red circle", "--cond", "i2v_head", "--ref", "no.png",
        "--save-dir", "refused", cwd=demo,
    )  # fmt: skip
    assert_refused(done, "no.png")
    assert not (demo / "refused").exists()


def test_fifty_frames_with_a_causal_autoencoder(demo: Path, osora: Osora) -> None:
    done = osora("sample", "tiny/sample", "--prompt", "x", "--num-frames", "50", "--save-dir", "refused", cwd=demo)
    assert_refused(done, "sampling.num_frames = 50", "4k+1", "Use 49 or 53")
    assert not (demo / "refused").exists()


def test_a_full_disk_during_a_save(prepared: Path, outputs: Path) -> None:
    """No file may grow beyond 200 kB: the log and the metrics fit, a checkpoint does not."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [
        str(OSORA), "train", "tiny/train", "--unset", "ae.from_pretrained", "--set", f"outputs={outputs}",
        "--set", "max_steps=2", "--set", "optim.warmup_steps=0", "--set", "dataset.num_workers=0",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=prepared, env=environment(), capture_output=True, text=True, check=False, preexec_fn=small_files
    )
    assert_refused(done, "cannot save a checkpoint", "File too large", "No checkpoint is complete yet")
    (run,) = outputs.iterdir()
    assert list((run / "checkpoints").iterdir()) == []
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_clip_that_cannot_be_read_is_named_and_replaced(
    prepared: Path, osora: Osora, outputs: Path, tmp_path: Path
) -> None:
    with (prepared / "demo" / "meta.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["path"] = str(prepared / "demo" / row["path"])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(rows[0]["path"]).read_bytes()[:700])
    rows[0]["path"] = str(broken)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    done = osora(
        "train", "tiny/train", "--unset", "ae.from_pretrained", "--set", f"outputs={outputs}", "--set", "max_steps=8",
        "--set", "optim.warmup_steps=0", "--set", f"dataset.data_path={tmp_path / 'table.csv'}",
        "--set", "dataset.max_bad_share=0.5", cwd=prepared,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = outputs.iterdir()
    with (run / "bad_samples.csv").open(newline="") as file:
        bad = list(csv.DictReader(file))
    assert {entry["path"] for entry in bad} == {str(broken)}
    assert bad[0]["reason"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 8


def test_an_image_is_no_clip_of_thirty_three_frames(demo: Path, osora: Osora, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    done = osora(
        "sample", "tiny/sample", "--prompt", "x", "--cond", "v2v_head", "--ref", tmp_path / "image.png",
        "--num-frames", "65", "--save-dir", "refused", cwd=demo,
    )  # fmt: skip
    assert_refused(done, "image.png", "33 frames")
    assert not (demo / "refused").exists()
