"""`osora config init`: a commented recipe to start from."""

from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.files import write_text
from opensora_cli.render import print_lines, write
from schemas.errors import UsageError
from schemas.resolve.starter import starter


def init(
    kind: Annotated[str, typer.Argument(help="train, vae-train, sample, vae-sample or vae-stats.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new file; printed if left out.", show_default=False)
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", help="Path or URL that editors take the JSON Schema from.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented recipe that resolves as it is: what one has to choose is set, every default is shown."""
    text = starter(kind, schema)
    if out is None:
        write(text.rstrip("\n"))
        return
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists. Give another name, or --overwrite.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print_lines([("ok", f"wrote {out}")])
