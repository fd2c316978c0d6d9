"""`osora meta` as a user runs it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import MEDIA, Osora
from tests.unit.data_fakes import numbered_mp4


@pytest.mark.skipif(not MEDIA.is_dir(), reason=f"real clips are read from {MEDIA}, which is not there")
def test_real_clips(osora: Osora, tmp_path: Path) -> None:
    done = osora("meta", MEDIA, "meta.csv", "--workers", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "11 clips -> meta.csv" in done.stdout
    table = pd.read_csv(tmp_path / "meta.csv")
    got = {Path(row.pop("path")).name: row for row in table.to_dict("records")}
    assert got == json.loads((MEDIA / "expected_meta.json").read_text())


def test_some_unreadable(osora: Osora, tmp_path: Path) -> None:
    numbered_mp4(tmp_path / "a.mp4")
    (tmp_path / "in.csv").write_text("path,text\na.mp4,good\nb.mp4,missing\n")
    done = osora("meta", "in.csv", "out.parquet")
    assert done.returncode == 0
    assert "1 clips -> out.parquet" in done.stdout
    assert "1 files cannot be read -> out.parquet.errors.csv" in done.stderr
    assert pd.read_parquet(tmp_path / "out.parquet")["text"].tolist() == ["good"]
    assert (tmp_path / "out.parquet.errors.csv").read_text() == "row,path,reason\n1,b.mp4,No such file or directory\n"


def test_nothing_readable(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("path\nb.mp4\n")
    done = osora("meta", "in.csv", "out.csv")
    assert done.returncode == 1
    assert "none of 1 files can be read" in done.stderr
    assert (tmp_path / "out.csv.errors.csv").exists()
    assert not (tmp_path / "out.csv").exists()


def test_no_column_path(osora: Osora, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("file,text\na.mp4,x\n")
    done = osora("meta", "in.csv", "out.csv")
    assert done.returncode == 1
    assert "in.csv: no column path (found: file, text). Rename the column" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_wrong_output_name(osora: Osora, tmp_path: Path) -> None:
    done = osora("meta", ".", "out.txt")
    assert done.returncode == 2
    assert ".csv or .parquet" in done.stderr.replace("\n", " ")


def test_nothing_to_resume_is_said(osora: Osora, tmp_path: Path) -> None:
    numbered_mp4(tmp_path / "a.mp4")
    done = osora("meta", ".", "out.csv", "--resume")
    assert done.returncode == 0
    assert "nothing to resume" in done.stderr
