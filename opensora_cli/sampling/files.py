"""A sampling job with files: what exists is kept or refused, each sample is written when it is made, failures come last."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from opensora_cli.distributed.process import Process
from opensora_cli.files import write_text
from opensora_cli.sampling.batches import Failed, Made
from opensora_cli.sampling.contact_sheet import write_contact_sheet
from opensora_cli.sampling.outputs import (
    SHEET,
    Output,
    identity,
    outputs_to_make,
    plan_outputs,
    recipe_hash,
    versions,
)
from opensora_cli.sampling.request import Request, Sample
from opensora_cli.sampling.saving import write_record, write_sample
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe
from schemas.resolve import Resolved

ROWS_SHOWN = 64  # of the contact sheet


class Maker(Protocol):
    """What a job needs of a pipeline."""

    resolved: Resolved
    recipe: SampleRecipe
    device: torch.device
    process: Process
    weights: dict[str, str | None]
    console: Console

    def plan(self, request: Request) -> list[Sample]:
        """Return the samples of a request."""
        ...

    def make(self, samples: Sequence[Sample]) -> Iterator[Made | Failed]:
        """Yield every sample; raise OsoraError at once for what can be known to fail."""
        ...


def run_job(maker: Maker, request: Request, *, overwrite: bool, resume: bool) -> list[Path]:
    """See `Pipeline.run`."""
    folder = Path(maker.recipe.sampling.save_dir)
    outputs = plan_outputs(maker.plan(request), folder)
    todo = _todo(maker, outputs, overwrite=overwrite, resume=resume)
    coming = maker.make([output.sample for output in todo])
    if skipped := len(outputs) - len(todo):
        _say(maker.console, f"{skipped} of {len(outputs)} samples are finished already")
    for table in (table for table, source in maker.weights.items() if source is None):
        _say(maker.console, f"{table}.from_pretrained is not set: these weights are random, and so are the samples")
    failures: list[Failed] = []
    if todo:
        _make_folder(folder)
        if maker.process.is_main:
            write_text(folder / "recipe.lock.toml", maker.resolved.lock())
        failures = _all_failures(maker, todo, _write_all(maker, todo, coming))
    if maker.process.is_main:
        _report(maker.console, outputs, failures)
    return [output.media for output in outputs]


def _todo(maker: Maker, outputs: list[Output], *, overwrite: bool, resume: bool) -> list[Output]:
    """Let one process look at what exists, before another has begun to write."""
    if not maker.process.is_main:
        numbers = json.loads(maker.process.from_main(None) or "[]")
        return [outputs[number] for number in numbers]
    todo = outputs_to_make(outputs, maker.recipe, maker.weights, overwrite=overwrite, resume=resume)
    wanted = {output.media for output in todo}
    maker.process.from_main(json.dumps([at for at, output in enumerate(outputs) if output.media in wanted]))
    return todo


def _all_failures(maker: Maker, todo: Sequence[Output], own: Sequence[Failed]) -> list[Failed]:
    """Return what failed in any process, in the order of the samples, when all have finished."""
    samples = [output.sample for output in todo]
    said = maker.process.gather(json.dumps([(samples.index(one.sample), str(one.error)) for one in own]))
    found = sorted((at, reason) for text in said for at, reason in json.loads(text))
    return [Failed(samples[at], OsoraError(reason)) for at, reason in found]


def _write_all(maker: Maker, todo: Sequence[Output], coming: Iterator[Made | Failed]) -> list[Failed]:
    """Write every sample as it comes, and return those that failed."""
    failures = []
    outputs = {output.sample: output for output in todo}
    job = {"recipe_sha256": recipe_hash(maker.resolved.lock()), "device": str(maker.device), "versions": versions()}
    for made in coming:
        if isinstance(made, Failed):
            failures.append(made)
            continue
        output = outputs[made.sample]
        try:
            _write(output, made, {**identity(made.sample, maker.recipe, maker.weights), **job})
        except OsoraError as error:
            failures.append(Failed(made.sample, error))
    return failures


def _write(output: Output, made: Made, facts: dict[str, Any]) -> None:
    started = time.perf_counter()
    output.record.unlink(missing_ok=True)  # until the new clip has its own record, it has none
    if made.image is not None and output.image is not None:
        write_sample(output.image, made.image.video, made.sample.config.fps_save)
        facts = {**facts, "image": _image_facts(made.image, output.image)}
    made.save(output.media)
    frames, height, width = made.video.shape[1:]
    config = made.sample.config
    record = {
        "file": output.media.name,
        "row": made.sample.row,
        "number": made.sample.number,
        **facts,
        "encoded_prompt": made.prompt.encoded,
        "refined_prompt": made.prompt.refined,
        "motion_score": made.prompt.motion_score or config.motion_score,
        "condition": config.cond_type,
        "frames": frames,
        "height": height,
        "width": width,
        "fps": config.fps_save,
        "evaluations": made.evaluations,
        "evaluations_cut_short": made.reused,
        "batch": made.batch,
        "seconds": {**made.seconds, "write": round(time.perf_counter() - started, 3)},
        "peak_bytes": made.peak_bytes,
    }
    write_record(output.record, record)


def _image_facts(image: Made, path: Path) -> dict[str, Any]:
    """Return what a clip's record says of its first frame."""
    _, height, width = image.video.shape[1:]
    config = image.sample.config
    return {
        "file": path.name,
        "seed": image.sample.seed,
        "encoded_prompt": image.prompt.encoded,
        "resolution": config.resolution,
        "aspect_ratio": config.aspect_ratio,
        "height": height,
        "width": width,
        "guidance": config.guidance,
        "num_steps": config.num_steps,
        "evaluations": image.evaluations,
        "seconds": image.seconds,
    }


def _report(console: Console, outputs: Sequence[Output], failures: Sequence[Failed]) -> None:
    """Draw the contact sheet and name every file. Raises OsoraError, with each reason, when samples failed."""
    failed = {failure.sample for failure in failures}
    written = [output for output in outputs if output.sample not in failed]
    if written:
        sheet = write_contact_sheet(
            written[0].media.parent / f"{SHEET}.png",
            [(one.media, f"{one.sample.prompt}  (seed {one.sample.seed})") for one in written[:ROWS_SHOWN]],
        )
        for output in written:
            _say(console, f"{output.media}  {output.record}")
        shown = f" (the first {ROWS_SHOWN})" if len(written) > ROWS_SHOWN else ""
        _say(console, f"contact sheet: {sheet}{shown}")
    if failures:
        reasons = "\n".join(f"  {failure.sample.label}: {failure.error}" for failure in failures)
        raise OsoraError(
            f"{len(failures)} of {len(outputs)} samples failed, the others are written:\n{reasons}\n"
            "Mend these and run the same command with --resume."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OsoraError(f"cannot make the folder {folder}: {error.strerror}. Choose another --save-dir.") from error


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
