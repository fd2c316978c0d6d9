"""`osora shard`: a table cut into parquet shards."""

from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.extras import require_extra
from schemas.errors import UsageError


def shard(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="csv or parquet file.")],
    folder: Annotated[Path, typer.Argument(metavar="OUTDIR", help="Folder to make; it must not have anything in it.")],
    rows_per_shard: Annotated[
        int | None, typer.Option("--rows-per-shard", metavar="N", min=1, help="Rows of each shard.", show_default=False)
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", metavar="K", min=1, help="Or: the number of shards.", show_default=False)
    ] = None,
    shuffle: Annotated[
        int | None,
        typer.Option(
            "--shuffle", metavar="SEED", help="Shuffle the rows; equal seeds, equal order.", show_default=False
        ),
    ] = None,
) -> None:
    """Cut a table into numbered parquet shards with a manifest, for sets that are too large for one file.

    Name OUTDIR/manifest.json as dataset.data_path. Paths of clips stay as they are; the manifest says where relative ones
    start. Equal input and options give equal bytes.
    """
    if (rows_per_shard is None) == (shards is None):
        raise UsageError("osora shard: give either --rows-per-shard N or --shards K.")
    require_extra("run", ("numpy", "pyarrow"))
    from opensora_cli.data.shard import ShardSizes, shard_table
    from opensora_cli.progress import counted

    with counted("shard") as report:
        manifest = shard_table(source, folder, ShardSizes(rows_per_shard, shards), shuffle=shuffle, report=report)
    typer.echo(f"{manifest['rows']} rows in {len(manifest['shards'])} shards -> {folder / 'manifest.json'}")
