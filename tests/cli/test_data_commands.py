"""`osora shard` and `osora data check` as a user runs them."""

import json
from pathlib import Path

from PIL import Image

from tests.cli.conftest import Osora

TABLE = "path,text,height,width,num_frames,fps\na.mp4,one,64,64,17,8\nb.mp4,two,64,64,17,8\n"


def test_shards(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text(TABLE)
    done = osora("shard", "meta.csv", "out", "--shards", 2, "--shuffle", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 rows in 2 shards -> out/manifest.json" in done.stdout
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["root"] == ".."
    again = osora("shard", "meta.csv", "out", "--shards", 2)
    assert again.returncode == 1
    assert "never overwritten" in again.stderr


def test_shards_of_which_size(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text(TABLE)
    done = osora("shard", "meta.csv", "out")
    assert done.returncode == 2
    assert "give either --rows-per-shard N or --shards K" in done.stderr


def test_a_check(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text(TABLE)
    (tmp_path / "a.mp4").write_bytes(b"x")
    wanted = ("tiny/train", "--set", "dataset.data_path=meta.csv", "--png", "fill.png")
    done = osora("data", "check", *wanted)
    assert done.returncode == 1
    assert "1 of 2 files cannot be read" in done.stdout
    assert "row 1: b.mp4: No such file or directory" in done.stdout
    with Image.open(tmp_path / "fill.png") as image:
        assert image.format == "PNG"
    (tmp_path / "b.mp4").write_bytes(b"x")
    done = osora("data", "check", *wanted, "--files", "all", "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["fit"]["batches"] == 1


def test_a_check_that_makes_no_sense(osora: Osora) -> None:
    done = osora("data", "check", "tiny/train", "--files", "some")
    assert done.returncode == 2
    assert "--files some: all, or the number" in done.stderr
    done = osora("data", "check", "tiny/sample")
    assert done.returncode == 1
    assert "has no training data to check" in done.stderr
