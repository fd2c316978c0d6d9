"""`osora config plan` as a user runs it: texts, formats, exit codes, messages."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Osora

META = "path,text,height,width,num_frames,fps\n" + "".join(f"{row}.mp4,a clip,64,64,17,24\n" for row in range(7))


def test_a_plan_for_people(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text(META)
    done = osora("config", "plan", "tiny/train", "--gpu", "rtx4090", "--data", "meta.csv")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "tiny/train: plan (train, fp32, 1 process on rtx4090 with 23.5 GiB, 21.8 of it for tensors)"
    assert "denoiser: 1,003,888 parameters" in lines
    assert "data: meta.csv, 7 clips" in lines
    assert "  3 updates in the first epoch" in lines
    assert lines[-1] == "every batch fits"


def test_a_plan_for_programs(osora: Osora) -> None:
    done = osora("config", "plan", "stage1_i2v", "--world-size", 8, "--gpu", "h200", "--format", "json")
    plan = json.loads(done.stdout)
    assert plan["parameters"]["denoiser"]["total"] == 11_891_390_528
    assert plan["parameters"]["autoencoder"]["total"] == 246_478_803
    assert plan["world_size"] == 8
    assert plan["sharing"] == [
        "data parallel 8 (x sequence 1): optimizer, average and weights at rest, gradients divided by 8"
    ]
    fits = [bucket["total_bytes"] <= plan["usable_bytes"] for bucket in plan["buckets"]]
    assert [bucket["fits"] for bucket in plan["buckets"]] == fits
    assert plan["fits"] is all(fits)
    assert done.returncode == (0 if all(fits) else 1)
    assert plan["data"] is None


def test_what_does_not_fit_is_named_and_fails(osora: Osora) -> None:
    done = osora("config", "plan", "stage1", "--gpu-memory", 40)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("does not fit: 1024px 1 frames")
    assert osora("config", "plan", "stage1").returncode == 0  # nothing to compare with


def test_a_suggested_layer_can_be_laid_over_the_recipe(osora: Osora, tmp_path: Path) -> None:
    asked = ("--gpu-memory", 2)
    done = osora("config", "plan", "tiny/train", *asked, "--suggest", "sizes.toml")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("batch sizes that fit: sizes.toml")
    assert '[buckets."64px"]' in (tmp_path / "sizes.toml").read_text()
    again = osora("config", "plan", "tiny/train", *asked, "--layer", "sizes.toml")
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1] == "every batch fits"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tiny/train", "--gpu", "h300"), 2, "--gpu h300: one of h200, h100"),
        (("stage2", "--world-size", "6"), 2, "--world-size 6: parallel.tp_size x sp_size x pp_size = 1 x 4 x 1 = 4"),
        (("tiny/train", "--suggest", "sizes.toml"), 2, "--suggest needs a limit"),
        (("tiny/train", "--data", "none.csv"), 1, "none.csv: no such file"),
        (("stage1", "--gpu", "rtx4090", "--suggest", "sizes.toml"), 1, "no bucket fits"),
        (("tiny/train", "--set", "optim.lrr=1"), 1, "unknown key"),
    ],
)
def test_errors(osora: Osora, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = osora("config", "plan", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["high_compression", "sample/t2i2v_256px", "vae/sample_hunyuan", "tiny/vae"])
def test_every_kind_has_a_plan(osora: Osora, name: str) -> None:
    done = osora("config", "plan", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{name}: plan (")
