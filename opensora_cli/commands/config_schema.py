"""`osora config schema`: JSON Schemas for editors and other programs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.files import write_text
from opensora_cli.render import print_lines, write
from schemas.resolve.json_schema import ANY_KIND, json_schema, schema_names


def schema(
    kind: Annotated[str, typer.Argument(help="A kind of recipe, or `recipe` for any.")] = ANY_KIND,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write every kind's schema into this folder instead.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema (draft 2020-12) of recipe files: `#:schema` in a file's first line points an editor to it."""
    if out is None:
        write(schema_text(kind).rstrip("\n"))
        return
    out.mkdir(parents=True, exist_ok=True)
    for name in schema_names():
        path = out / f"{name}.schema.json"
        write_text(path, schema_text(name))
        print_lines([("ok", f"wrote {path}")])


def schema_text(name: str) -> str:
    """Return one schema as the committed files hold it."""
    return json.dumps(json_schema(name), indent=1, ensure_ascii=False) + "\n"
