"""`osora cache`: latents and text features on disk, so that training need not encode."""

import sys
from typing import Annotated

import typer

from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_diagnostics


def cache(
    recipe: Annotated[str, typer.Argument(help="A train recipe, or the name of a packaged one.", show_default=False)],
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    latents: Annotated[bool, typer.Option("--latents/--no-latents", help="Encode the clips.")] = True,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Encode the captions and the empty one.")] = True,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="Windows drawn for each clip: --set dataset.cached_windows=K.", show_default=False),
    ] = None,
    shard_mib: Annotated[
        float, typer.Option(min=0.001, help="Size of a shard in MiB; a killed job loses less than one.")
    ] = 256,
    verify: Annotated[bool, typer.Option("--verify", help="Read the cache back, name damaged shards, stop.")] = False,
) -> None:
    """Encode the clips and captions of a train recipe once; `osora train` reads them with dataset.cached_video and cached_text.

    Run again, it adds what is missing: after a stop, a full disk, or new clips. Several processes share the work under
    `torchrun --nproc-per-node N -m opensora_cli.main cache RECIPE`.
    """
    from schemas.errors import UsageError
    from schemas.recipes import TrainRecipe
    from schemas.resolve import resolve

    sets = [*(set_ or ()), *([f"dataset.cached_windows={windows}"] if windows else ())]
    resolved = resolve(recipe, layers=layer or (), sets=sets, unsets=unset or (), kind="train")
    print_diagnostics(resolved.warnings, sys.stderr)
    require_extra("run")
    assert isinstance(resolved.recipe, TrainRecipe)

    from rich.console import Console

    from opensora_cli.data.cache.job import run_cache
    from opensora_cli.data.cache.verifying import verify_cache

    if not latents and not text:
        raise UsageError("--no-latents and --no-text leave nothing to do. Drop one of them.")
    if verify:
        raise typer.Exit(verify_cache(resolved.recipe, latents=latents, text=text, console=Console()))
    code = run_cache(resolved.recipe, latents=latents, text=text, shard_mib=shard_mib, console=Console())
    raise typer.Exit(code)
