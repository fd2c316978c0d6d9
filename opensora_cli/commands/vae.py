"""`osora vae-sample` and `osora vae-stats`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_diagnostics
from schemas.resolve import Resolved, resolve

Recipe = Annotated[
    str,
    typer.Argument(
        help="A recipe file, the name of a packaged one, a vae-train run folder or a checkpoint.", show_default=False
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Clips: csv, parquet or a folder (default: dataset.data_path).")
]
NumSamples = Annotated[int | None, typer.Option("--num-samples", min=1, help="Clips to take (default: all).")]
SaveDir = Annotated[str | None, typer.Option("--save-dir", help="Folder for the results.")]
Ema = Annotated[bool, typer.Option("--ema", help="Use the averaged weights of a checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make reconstructions again that exist already.")]


def vae_sample(
    recipe: Recipe,
    data: Data = None,
    num_samples: NumSamples = None,
    save_dir: SaveDir = None,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    ema: Ema = False,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct clips with an autoencoder: side-by-side files, and PSNR, SSIM and LPIPS of each in quality.csv."""
    options = {
        "dataset.data_path": str(data) if data else None,
        "reconstruction.num_samples": num_samples,
        "reconstruction.save_dir": save_dir,
    }
    resolved = _resolved("vae-sample", recipe, options, layer, set_, unset)

    from rich.console import Console

    from opensora_cli.reconstruction.sample import run_reconstruction

    run_reconstruction(resolved, console=Console(), overwrite=overwrite, ema=ema)


def vae_stats(
    recipe: Recipe,
    data: Data = None,
    num_samples: NumSamples = None,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    ema: Ema = False,
) -> None:
    """Measure the latents of clips, channel by channel, and print the scale and shift to put in a recipe."""
    options = {"dataset.data_path": str(data) if data else None, "num_samples": num_samples}
    resolved = _resolved("vae-stats", recipe, options, layer, set_, unset)

    from rich.console import Console

    from opensora_cli.reconstruction.statistics import run_statistics

    run_statistics(resolved, console=Console(), ema=ema)


def _resolved(
    kind: str,
    recipe: str,
    options: dict[str, str | int | None],
    layers: Layers,
    sets: Sets,
    unsets: Unsets,
) -> Resolved:
    """Resolve the recipe, or the run that RECIPE names, with the options that were given laid over it."""
    from opensora_cli.sampling.source import find_source

    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    overrides = [*(sets or ()), *given]
    source = find_source(recipe, overrides, kind=kind)
    resolved = resolve(
        source.recipe,
        layers=layers or (),
        sets=overrides,
        unsets=[*source.unsets, *(unsets or ())],
        kind=kind,
        injected=source.injected,
    )
    print_diagnostics(resolved.warnings, sys.stderr)
    require_extra("run")
    return resolved
