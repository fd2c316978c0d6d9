"""`osora demo`: made clips and tiny text encoders, so that everything can be tried on any machine."""

from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.extras import require_extra
from opensora_cli.overrides import Sets

app = typer.Typer(no_args_is_help=True)


@app.callback()
def demo() -> None:
    """Try everything on made clips."""


@app.command()
def prepare(
    out: Annotated[Path, typer.Option(help="Folder for clips, meta.csv and the tiny T5 and CLIP.")] = Path("demo"),
    clips: Annotated[int, typer.Option(min=1, help="Clips to make.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Seed of pictures and weights.")] = 0,
) -> None:
    """Make captioned clips of moving shapes, their table, and tiny text encoders with random weights."""
    require_extra("run")
    from opensora_cli.data.demo_clips import prepare_demo

    prepare_demo(out, clips=clips, seed=seed)
    typer.echo(f"{clips} clips, meta.csv, t5 and clip -> {out}")


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    clips: Annotated[int, typer.Option(min=8, help="Clips to make.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Seed of pictures and weights.")] = 0,
    set_: Sets = None,
) -> None:
    """Make clips, train a tiny autoencoder and a tiny denoiser, sample: a few minutes on two CPU cores."""
    require_extra("run")
    from rich.console import Console

    from opensora_cli.demo import run_demo

    run_demo(out, clips, seed, Console(), sets=set_ or ())
