"""`osora meta`: a table of clips with their sizes, lengths and frame rates."""

import os
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.extras import require_extra

COLUMNS_HELP = (
    "More columns: codec, pixel_format, duration (s), has_audio, rotation (degrees clockwise), variable_frame_rate. "
    "They take reading each file to its end."
)


def meta(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="csv or parquet file with a column path, or a folder.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="csv or parquet file to write.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; one per CPU if left out.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run on the same INPUT and OUTPUT.")
    ] = False,
    columns: Annotated[str, typer.Option("--columns", metavar="A,B", help=COLUMNS_HELP)] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Give up on a file after that long.")
    ] = 120.0,
) -> None:
    """Write height, width, num_frames, fps, aspect_ratio (height / width) and resolution (pixels) of every clip.

    Relative paths in a table start at the table's folder; s3://, hf:// and https:// paths are read through fsspec.
    Files that cannot be read are left out and listed in OUTPUT.errors.csv.
    """
    require_extra("run")
    from opensora_cli.data.meta import MetaResult, errors_path, partial_path, run_meta
    from opensora_cli.data.meta_columns import wanted_columns
    from opensora_cli.progress import counted

    if resume and not partial_path(output).is_file():
        typer.echo(f"{partial_path(output)} is not there: nothing to resume, starting from the first file.", err=True)
    with counted("meta") as report:
        result: MetaResult = run_meta(
            source,
            output,
            workers=workers or available_cpus(),
            columns=wanted_columns(columns),
            timeout=timeout,
            resume=resume,
            report=report,
        )
    if result.resumed:
        typer.echo(f"{result.resumed} files were done before")
    if result.rebased:
        typer.echo(f"relative paths were rewritten to start at {output.parent}")
    typer.echo(f"{result.written} clips -> {output}")
    if result.unreadable:
        typer.echo(f"{result.unreadable} files cannot be read -> {errors_path(output)}", err=True)


def available_cpus() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
