"""`osora ckpt`: looking into, converting, fetching and tidying weights and checkpoints."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_lines, write

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Look into, convert, fetch and tidy weights and checkpoints."
)


class Layout(StrEnum):
    """How q, k and v lie in a denoiser's weights, and under which names."""

    open_sora = "open-sora"
    flux = "flux"
    diffusers = "diffusers"


class Precision(StrEnum):
    """Element types to write."""

    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


Source = Annotated[
    Path, typer.Argument(help="Weights: a file, a folder, a checkpoint or a run folder.", show_default=False)
]
Out = Annotated[
    Path, typer.Argument(help="A .safetensors file or a folder that does not exist yet.", show_default=False)
]
LayoutOption = Annotated[
    Layout | None,
    typer.Option("--layout", help="Names and order of q, k and v; as it is if left out.", show_default=False),
]
Dtype = Annotated[
    Precision | None, typer.Option("--dtype", help="Precision; as it is if left out.", show_default=False)
]
ShardGb = Annotated[float, typer.Option("--shard-gb", min=0.001, help="Largest file, in 1e9 bytes.")]


@app.command()
def inspect(
    path: Source,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="GLOB", help="List these tensors instead.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file of a run's checkpoints with its checksum instead.")
    ] = False,
) -> None:
    """Say what weights are, how large, and what a recipe must say to load them; only headers are read."""
    _need_run()
    if verify:
        _verify(path)
        return
    from opensora_cli.ckpt.contents import content_lines, contents, key_lines

    if keys is not None:
        print_lines(key_lines(path, keys))
    elif as_json:
        write(json.dumps(contents(path), indent=2))
    else:
        print_lines(content_lines(contents(path)))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or one of its checkpoints.", show_default=False)],
    out: Out,
    ema: Annotated[bool | None, typer.Option("--ema/--no-ema", help="Averaged weights; by default where kept.")] = None,
    layout: LayoutOption = None,
    dtype: Dtype = None,
    shard_gb: ShardGb = 10.0,
) -> None:
    """Write what a run trained as safetensors, for osora, Open-Sora, Flux or diffusers; adapters for peft or diffusers."""
    _need_run()
    from opensora_cli.ckpt.convert import Output, convert_weights
    from opensora_cli.ckpt.trained import trained

    found = trained(run, ema)
    if found.adapter is not None:
        from opensora_cli.ckpt.adapters import export_adapter

        _print_files(export_adapter(found.weights, found.adapter, layout, Output(out, dtype, shard_gb)))
        return
    _print_files(convert_weights(found.weights, layout, Output(out, dtype, shard_gb), trained_as=found.denoiser))


@app.command("import")
def import_(
    source: Source,
    out: Out,
    recipe: Annotated[
        str, typer.Option("--recipe", help="The training recipe that is to load them.", show_default=False)
    ],
    rename: Annotated[
        list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Replace in every key; repeatable.")
    ] = None,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    dtype: Dtype = None,
    shard_gb: ShardGb = 10.0,
) -> None:
    """Make foreign weights (Open-Sora's, Flux's, diffusers', ColossalAI's folders) what a recipe's `from_pretrained` loads."""
    from schemas.resolve import resolve

    resolved = resolve(recipe, layers=layer or (), sets=set_ or (), unsets=unset or ())
    _need_run()
    from opensora_cli.ckpt.convert import Output, import_weights
    from opensora_cli.sampling.weights import find_weights
    from schemas.errors import UsageError
    from schemas.recipes import RunRecipe

    if not isinstance(resolved.recipe, RunRecipe):
        raise UsageError(f"--recipe {recipe}: its kind is {resolved.recipe.kind}; give one of kind train or vae-train.")
    _print_files(
        import_weights(find_weights(str(source), "SOURCE"), resolved.recipe, Output(out, dtype, shard_gb), rename or ())
    )


@app.command()
def convert(
    source: Source, out: Out, layout: LayoutOption = None, dtype: Dtype = None, shard_gb: ShardGb = 10.0
) -> None:
    """Write weights again: another layout, precision or size of files."""
    _need_run()
    from opensora_cli.ckpt.convert import Output, convert_weights
    from opensora_cli.sampling.weights import find_weights

    weights = find_weights(str(source), "SOURCE")
    _print_files(convert_weights(weights, layout, Output(out, dtype, shard_gb)))


@app.command("merge-lora")
def merge_lora(
    base: Annotated[
        Path, typer.Argument(help="The denoiser's weights: a file, a folder or a run.", show_default=False)
    ],
    adapter: Annotated[
        Path,
        typer.Argument(
            help="A run with [lora], its checkpoint, or an adapter of peft or diffusers.", show_default=False
        ),
    ],
    out: Out,
    weight: Annotated[float, typer.Option("--weight", help="How many times the adapter is added.")] = 1.0,
    ema: Annotated[bool, typer.Option("--ema", help="The averaged adapter of a run.")] = False,
    dtype: Dtype = None,
    shard_gb: ShardGb = 10.0,
) -> None:
    """Add an adapter to the weights that it was trained on, and write them as one."""
    _need_run()
    from opensora_cli.ckpt.adapters import merge_adapter
    from opensora_cli.ckpt.convert import Output
    from opensora_cli.ckpt.trained import trained_config
    from opensora_cli.sampling.weights import find_adapter, find_weights

    weights = find_weights(str(base), "BASE")
    config = trained_config(base)
    found = find_adapter(str(adapter), ema=ema)
    _print_files(merge_adapter(weights, found, Output(out, dtype, shard_gb), weight, config))


@app.command()
def prune(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    keep: Annotated[int, typer.Option("--keep", min=1, help="Newest checkpoints to keep.")] = 1,
    every: Annotated[
        int | None,
        typer.Option("--every", min=1, help="Keep those at a multiple of so many updates.", show_default=False),
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Remove those that are not what was written, and no others.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove a run's older checkpoints, or its damaged ones."""
    _need_run()
    from opensora_cli.ckpt.prune import checkpoints_to_prune
    from opensora_cli.ckpt.prune import prune as remove
    from opensora_cli.ckpt.verify import verify

    old = [path for path, found in verify(run).items() if found] if damaged else checkpoints_to_prune(run, keep, every)
    print_lines(("plain", f"{'would remove' if dry_run else 'remove'} {path}") for path in old)
    if not dry_run:
        print_lines([("ok", f"{len(old)} removed, {remove(old) / 2**20:.1f} MiB free again")])


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="open-sora-v2, flux1-dev, dc-ae, t5, clip, or a hub's OWNER/NAME.", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="Where to; OWNER/NAME gets a folder of its own below.")] = Path(
        "ckpts"
    ),
    file: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="GLOB", help="Only these files; repeatable.", show_default=False),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit.", show_default=False)
    ] = None,
) -> None:
    """Fetch published weights from the Hugging Face hub; no pickled files unless --file names them."""
    _need_run()
    from opensora_cli.ckpt.download import download as fetch

    print_lines([("ok", f"fetched into {fetch(name, to, file or (), revision)}")])


def _verify(path: Path) -> None:
    """Report every checkpoint and end with exit code 1 if one is damaged."""
    from opensora_cli.ckpt.verify import verify

    found = verify(path)
    for checkpoint, damages in found.items():
        print_lines([("error", line) for line in damages] or [("ok", f"{checkpoint} is what was written")])
    if any(found.values()):
        raise typer.Exit(1)


def _need_run() -> None:
    require_extra("run", ("torch", "safetensors"))


def _print_files(files: list[Path]) -> None:
    print_lines(("ok", f"wrote {path}") for path in files)
