"""`osora recipes`: the recipes that come with osora."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.render import encodable, print_lines
from schemas.errors import UsageError
from schemas.resolve import packaged_recipes
from schemas.resolve.keys import quote
from schemas.resolve.packaged import locate
from schemas.resolve.sources import FileSource, read_file
from schemas.resolve.spans import SpanReader

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, show and copy the packaged recipes.")
Name = Annotated[str, typer.Argument(help="A packaged recipe, such as stage1.", show_default=False)]


@app.command("list")
def list_() -> None:
    """List the packaged recipes: name, kind, and the first line of what it says about itself."""
    width = max(len(name) for name in packaged_recipes())
    for name, path in packaged_recipes().items():
        file = read_file(str(path))
        kind = str(file.values.get("kind", "layer"))
        print_lines([("plain", f"{name:{width}}  {kind:9}  {_summary(file)}".rstrip())])


@app.command()
def show(name: Name) -> None:
    """Print a packaged recipe as it is written; `osora config show` prints what it resolves to."""
    sys.stdout.write(encodable(_packaged(name).text, sys.stdout))


@app.command()
def copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(help="A file or folder; the current folder if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Copy a packaged recipe, to be changed; its bases stay the packaged ones."""
    file = _packaged(name)
    target = to or Path()
    if target.is_dir():
        target /= f"{Path(name).stem}.toml"
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists. Give another name, or --overwrite.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(with_packaged_bases(file), encoding="utf-8")
    print_lines([("ok", f"wrote {target}")])


def with_packaged_bases(file: FileSource) -> str:
    """Return a packaged recipe's text with bases named so that they are found from anywhere."""
    names = {os.path.realpath(path): name for name, path in packaged_recipes().items()}
    text = file.text
    spans = {path: span for path, span in SpanReader(text).spans.items() if path[0] == "_base_"}
    for span in sorted(spans.values(), key=lambda span: -span.value_start):
        raw = text[span.value_start : span.value_end]
        if raw[0] in "\"'":
            base = os.path.realpath(locate(raw.strip("\"'"), file.folder))
            text = text[: span.value_start] + quote(names.get(base, raw.strip("\"'"))) + text[span.value_end :]
    return text


def _packaged(name: str) -> FileSource:
    path = packaged_recipes().get(name.removesuffix(".toml"))
    return read_file(locate(name) if path is None else str(path))


def _summary(file: FileSource) -> str:
    first = file.text.lstrip().split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
