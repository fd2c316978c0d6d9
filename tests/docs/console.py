"""Pages of the docs as programs: blocks with a file name are written, blocks with `$` commands are run and compared.

    ```toml title="mine.toml"       a file of this name
    ```console                      `$ osora ...` and what it prints; `...` on a line of its own stands for any lines

`python -m tests.docs.console docs/recipes.md` writes what the commands print now into the page.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
OSORA = Path(sys.executable).parent / "osora"


@dataclass(frozen=True)
class Command:
    """A command of a page with the output that the page shows, and what it printed."""

    line: str
    shown: str
    printed: str


def run_page(text: str, folder: Path) -> list[Command]:
    """Write the files of a page and run its commands, in the order of the page."""
    done = []
    for block in BLOCK.finditer(text):
        title = TITLE.search(block["info"])
        if title is not None:
            path = folder / title[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["body"])
        elif block["info"].split(" ")[0] == "console":
            done += [Command(line, shown, run(line, folder)) for line, shown in commands(block["body"])]
    return done


def commands(body: str) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the text below it."""
    found = []
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        found.append((line, shown))
    return found


def run(line: str, folder: Path) -> str:
    """Return what an `osora` command prints, stdout before stderr; the exit code follows if it is not 0."""
    words = shlex.split(line.split("  #")[0])
    assert words[0] == "osora", f"only osora is run: {line}"
    environment = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "HOME": "/home/you", "COLUMNS": "120"}
    done = subprocess.run([OSORA, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + (f"(exit code {done.returncode})\n" if done.returncode else "")


def agrees(shown: str, printed: str) -> bool:
    """Whether the output is what the page shows, where `...` stands for any lines."""
    pattern = "".join("(?:.*\n)*" if line == "...\n" else re.escape(line) for line in shown.splitlines(keepends=True))
    return re.fullmatch(pattern, printed) is not None


def rewritten(text: str, done: list[Command]) -> str:
    """Return the page with what the commands print now; outputs that hold `...` and still agree stay."""
    for command in done:
        if not agrees(command.shown, command.printed):
            text = text.replace(f"$ {command.line}\n{command.shown}", f"$ {command.line}\n{command.printed}", 1)
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        with tempfile.TemporaryDirectory() as here:
            page.write_text(rewritten(page.read_text(), run_page(page.read_text(), Path(here))))
