"""`osora sample`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from opensora_cli.commands.processes import Nnodes, Nproc, Rdzv, start_processes
from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_diagnostics
from schemas.errors import UsageError

Recipe = Annotated[
    str,
    typer.Argument(help="A recipe file, the name of a packaged one, a run folder or a checkpoint.", show_default=False),
]
Prompts = Annotated[list[str] | None, typer.Option("--prompt", help="What the clip shows; repeatable.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="A text file with one prompt a line, or a table (csv, parquet) with a column text."),
]
StartIndex = Annotated[int, typer.Option("--start-index", min=0, help="First prompt to make, from 0.")]
EndIndex = Annotated[int | None, typer.Option("--end-index", min=0, help="Prompt to stop before.")]
Condition = Annotated[str | None, typer.Option("--cond", help="Which frames come from a reference: t2v, i2v_head, ...")]
References = Annotated[
    list[str] | None,
    typer.Option("--ref", help="Reference image or clip; ';' between the two of i2v_loop. One, or one per prompt."),
]
Negative = Annotated[str | None, typer.Option("--neg", help="What the clip should not show.")]
NumFrames = Annotated[int | None, typer.Option("--num-frames", help="Frames to make; 1 makes an image.")]
Resolution = Annotated[str | None, typer.Option("--resolution", help="Pixel budget, such as 256px.")]
AspectRatio = Annotated[str | None, typer.Option("--aspect-ratio", help="Width:height, such as 16:9.")]
NumSteps = Annotated[int | None, typer.Option("--num-steps", help="Steps of the solver.")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Scale of the text guidance.")]
Solver = Annotated[str | None, typer.Option("--solver", help="euler, heun or dpmpp_2m.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the first prompt; prompt i uses seed + i.")]
NumSamples = Annotated[int | None, typer.Option("--num-samples", help="Samples for each prompt.")]
MotionScore = Annotated[
    str | None, typer.Option("--motion-score", help="1 (still) to 7, none, or dynamic: a language model chooses.")
]
Refine = Annotated[
    bool,
    typer.Option("--refine-prompt", help="Let a language model write prompts out (OPENAI_BASE_URL, OPENAI_API_KEY)."),
]
Format = Annotated[str | None, typer.Option("--format", help="mp4, lossless, gif or webp.")]
Names = Annotated[str | None, typer.Option("--names", help="Call files after: auto, index, name or prompt.")]
SaveDir = Annotated[str | None, typer.Option("--save-dir", help="Folder for the results.")]
Ema = Annotated[bool, typer.Option("--ema", help="Use the averaged weights of a checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make samples again that exist already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Make only the samples that are missing.")]


def sample(
    recipe: Recipe,
    prompt: Prompts = None,
    prompts: PromptsFile = None,
    cond: Condition = None,
    ref: References = None,
    neg: Negative = None,
    num_frames: NumFrames = None,
    resolution: Resolution = None,
    aspect_ratio: AspectRatio = None,
    num_steps: NumSteps = None,
    guidance: Guidance = None,
    solver: Solver = None,
    seed: Seed = None,
    num_samples: NumSamples = None,
    start_index: StartIndex = 0,
    end_index: EndIndex = None,
    motion_score: MotionScore = None,
    refine_prompt: Refine = False,
    format_: Format = None,
    names: Names = None,
    save_dir: SaveDir = None,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
    ema: Ema = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    nproc: Nproc = None,
    nnodes: Nnodes = 1,
    rdzv: Rdzv = None,
) -> None:
    """Make clips or images from prompts, and from reference images or clips."""
    from opensora_cli.distributed.launch import launched_by_osora
    from opensora_cli.distributed.place import find_place
    from opensora_cli.sampling.source import find_source
    from schemas.resolve import resolve

    options = {
        "cond_type": cond,
        "num_frames": num_frames,
        "resolution": resolution,
        "aspect_ratio": aspect_ratio,
        "num_steps": num_steps,
        "guidance": guidance,
        "solver": solver,
        "seed": seed,
        "num_samples": num_samples,
        "motion_score": motion_score,
        "refine_prompt": refine_prompt or None,
        "output_format": format_,
        "names": names,
        "save_dir": save_dir,
    }
    sets = [*(set_ or ()), *_overrides(options)]
    source = find_source(recipe, sets)
    resolved = resolve(
        source.recipe,
        layers=layer or (),
        sets=sets,
        unsets=[*source.unsets, *(unset or ())],
        kind="sample",
        injected=source.injected,
    )
    if resolution is not None and resolved.tree()["sampling"].get("height") is not None:
        raise UsageError(
            "--resolution: the recipe gives sampling.height and sampling.width, which go before it. Add --unset "
            "sampling.height --unset sampling.width, or leave --resolution out."
        )
    if not launched_by_osora():
        place = find_place(os.environ)
        if place is None or place.rank == 0:
            print_diagnostics(resolved.warnings, sys.stderr)
        require_extra("run")
        if (code := start_processes([resolved], nproc, nnodes, rdzv)) is not None:
            raise typer.Exit(code)

    from opensora_cli.sampling import Request
    from opensora_cli.sampling.job import run_sampling

    request = Request(tuple(prompt or ()), prompts, tuple(ref or ()), neg, start_index, end_index)
    run_sampling(resolved, request, ema=ema, overwrite=overwrite, resume=resume)


def _overrides(options: dict[str, str | int | float | None]) -> list[str]:
    """Turn the options that were given into `--set` texts; text is quoted, so that TOML cannot take it for a number."""
    return [f"sampling.{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
