"""A folder of many clips of which some are broken, each in a known way."""

import csv
import os
import stat
from pathlib import Path

from tests.unit.data_fakes import numbered_mp4

KINDS = ("empty", "truncated", "text", "fifo", "directory", "no permission")
SIZES = ((32, 48), (48, 32), (64, 64))


def make_set(folder: Path, count: int, every: int) -> tuple[Path, dict[int, str]]:
    """Write `count` clips (links to a few) and a table, one row in `every` broken; return the table and row -> kind."""
    made = [numbered_mp4(folder / f"made-{number}.mp4", 5 + number, size=size) for number, size in enumerate(SIZES)]
    clips = folder / "clips"
    broken: dict[int, str] = {}
    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "text"])
        for row in range(count):
            path = clips / f"{row // 1000:03d}" / f"{row:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            if row % every == every // 2:
                broken[row] = KINDS[len(broken) % len(KINDS)]
                make_broken(path, broken[row], made[0])
            else:
                os.link(made[row % len(made)], path)
            table.writerow([path.relative_to(folder), f'clip {row}, "quoted"'])
    return folder / "in.csv", broken


def make_broken(path: Path, kind: str, good: Path) -> None:
    match kind:
        case "empty":
            path.touch()
        case "truncated":
            path.write_bytes(good.read_bytes()[:300])
        case "text":
            path.write_text("this is no clip\n" * 20)
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "no permission":
            path.write_bytes(good.read_bytes())
            path.chmod(stat.S_IWUSR)
        case _:
            raise ValueError(kind)


def obeying_permissions(command: list[str]) -> list[str]:
    """Return the command as it has to be run so that a file without permissions cannot be read, by the superuser either."""
    if os.geteuid():
        return command
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--", *command]
