"""`osora cache` as a process: killed, out of disk, several at once."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from opensora_cli.data.cache.verifying import verify_cache
from tests.cli.conftest import environment
from tests.unit.cache_fakes import entries, make_cache, make_folder, recipe, same_entries, sets_of, write_table

SMALL_DISK = """
import resource, sys
from opensora_cli.main import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)  # the kernel refuses as on a full disk
main()
"""


def arguments(folder: Path, *more: str) -> list[str]:
    sets = [part for text in sets_of(folder) for part in ("--set", text)]
    return ["cache", "tiny/train", *sets, "--unset", 'buckets."64px"', "--no-text", *more]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], env=environment(), capture_output=True, text=True, check=False)


def intact(folder: Path, *sets: str) -> bool:
    return verify_cache(recipe(folder, *sets), latents=True, text=False, console=Console(quiet=True)) == 0


def test_a_killed_job_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A shard for every entry; what was whole when the job was killed is not encoded again, the rest comes out the same."""
    one, other = make_folder(tmp_path / "one"), make_folder(tmp_path / "other")
    command = ["-m", "opensora_cli.main", *arguments(one, "--shard-mib", "0.001", "--windows", "4")]
    job = subprocess.Popen(
        [sys.executable, *command], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while job.poll() is None:
        if len(list(one.rglob("shard-*"))) >= 3:
            job.send_signal(signal.SIGKILL)
        time.sleep(0.002)  # polling another process, not waiting for a result
    assert job.returncode == -signal.SIGKILL
    left = {path: path.stat().st_mtime_ns for path in one.rglob("shard-*")}
    assert not list(one.rglob("manifest.json"))
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in left} == left
    make_cache(other, "dataset.cached_windows=4", text=False)
    assert same_entries(entries(one), entries(other))
    assert intact(one, "dataset.cached_windows=4")
    total = len({name.partition(".")[0] for name in entries(one)})
    encoded = [int(count) for count in re.findall(r"3/3  (\d+) encoded", done.stdout)]
    assert len(encoded) == 4
    assert sum(encoded) == total - len(left) > 0
    sets = "--set dataset.cached_video=true --set dataset.cached_windows=4"
    assert f"to train from it: {sets}\n" in done.stdout


def test_a_full_disk_leaves_the_cache_valid(tmp_path: Path) -> None:
    """A cache of two clips; then the table grows, and the disk has no room for the next shard."""
    folder = make_folder(tmp_path, rows=2)
    make_cache(folder, text=False)
    before = entries(folder)
    write_table(folder, 6)
    limit = max(path.stat().st_size for path in (folder / "meta.csv.cache").rglob("*") if path.is_file()) + 512
    done = run("-c", SMALL_DISK, str(limit), *arguments(folder))
    assert done.returncode == 1, done.stdout
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "make room and run `osora cache` again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.rglob(".*.partial"))
    assert same_entries(entries(folder), before)
    write_table(folder, 2)
    assert intact(folder)
    write_table(folder, 6)
    make_cache(folder, text=False)
    assert intact(folder)
    assert len({name.partition(".")[0] for name in entries(folder)}) == 6


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    folder, alone = make_folder(tmp_path / "two"), make_folder(tmp_path / "one")
    done = run("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "opensora_cli.main", *arguments(folder))
    assert done.returncode == 0, done.stderr
    shards = sorted(path.name for path in folder.rglob("shard-*"))
    assert shards == ["shard-0000-000000.safetensors", "shard-0001-000000.safetensors"]
    make_cache(alone, text=False)
    assert same_entries(entries(folder), entries(alone))
    assert intact(folder)
    assert done.stdout.count("latents: 6 entries") == 1
