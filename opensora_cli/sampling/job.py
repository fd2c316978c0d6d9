"""A sampling job from resolved recipe to files: user errors first, then texts, then models, then batch after batch."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from opensora_cli.distributed.process import DTYPES, pick_device
from opensora_cli.files import write_text
from opensora_cli.progress import JobProgress
from opensora_cli.sampling.contact_sheet import write_contact_sheet
from opensora_cli.sampling.generate import Clips, Generator, encode_references, generate
from opensora_cli.sampling.outputs import Output, identity, outputs_to_make, plan_outputs, versions
from opensora_cli.sampling.pipeline import autoencoder_facts, load_models
from opensora_cli.sampling.prompts import PromptTable, encode_prompts, full_prompt
from opensora_cli.sampling.references import PixelClips, read_references
from opensora_cli.sampling.request import Request, plan_samples
from opensora_cli.sampling.saving import write_record, write_sample
from opensora_cli.sampling.size import sample_size
from opensora_cli.sampling.weights import find_weights
from opensora_cli.supported import check_supported
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe
from schemas.resolve import Resolved


@dataclass(frozen=True)
class Job:
    """Everything that is known before a model is built."""

    recipe: SampleRecipe
    size: tuple[int, int]
    references: PixelClips
    weights: dict[str, str | None]
    todo: list[Output]
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the models."""
        return DTYPES[self.recipe.dtype]


def run_sampling(
    resolved: Resolved,
    request: Request,
    *,
    console: Console,
    overwrite: bool = False,
    resume: bool = False,
    ema: bool = False,
) -> list[Path]:
    """Make every sample of a job, write files, records and a contact sheet, and return the samples' paths.

    Raises OsoraError, before any model is built, for whatever is wrong with the request.
    """
    recipe = resolved.recipe
    assert isinstance(recipe, SampleRecipe)
    check_supported(recipe)
    outputs = plan_outputs(
        plan_samples(request, recipe), Path(recipe.sampling.save_dir), image=recipe.sampling.num_frames == 1
    )
    job = prepare(recipe, outputs, overwrite=overwrite, resume=resume, ema=ema)
    if skipped := len(outputs) - len(job.todo):
        _say(console, f"{skipped} of {len(outputs)} samples are finished already")
    for table in (table for table, source in job.weights.items() if source is None):
        _say(console, f"{table}.from_pretrained is not set: these weights are random, and so are the samples")
    if job.todo:
        _make_folder(Path(recipe.sampling.save_dir))
        write_text(Path(recipe.sampling.save_dir) / "recipe.lock.toml", resolved.lock())
        make_samples(job, console)
    sheet = write_contact_sheet(
        Path(recipe.sampling.save_dir) / "contact-sheet.png",
        [(output.media, f"{output.sample.prompt}  (seed {output.sample.seed})") for output in outputs],
    )
    for output in outputs:
        _say(console, f"{output.media}  {output.record}")
    _say(console, f"contact sheet: {sheet}")
    return [output.media for output in outputs]


def prepare(recipe: SampleRecipe, outputs: list[Output], *, overwrite: bool, resume: bool, ema: bool) -> Job:
    """Check and read everything that needs no model: device, size, weights' files, outputs in the way, references."""
    device = pick_device(recipe.device)
    facts = autoencoder_facts(recipe.ae)
    height, width = sample_size(recipe.sampling, facts.strides[1] * recipe.model.patch_size)
    weights = {
        "model": _weights(recipe.model.from_pretrained, "model.from_pretrained", ema),
        "ae": _weights(recipe.ae.from_pretrained, "ae.from_pretrained", False),
    }
    todo = outputs_to_make(outputs, recipe, weights, overwrite=overwrite, resume=resume)
    references = read_references(
        (output.sample.references for output in todo),
        recipe.sampling.cond_type,
        causal=facts.causal,
        height=height,
        width=width,
    )
    return Job(recipe, (height, width), references, weights, todo, device)


def make_samples(job: Job, console: Console) -> None:
    """Encode the prompts, load the models, and make the samples batch by batch; each is written when it is done."""
    sampling = job.recipe.sampling
    texts = {full_prompt(output.sample.prompt, sampling) for output in job.todo}
    texts |= {output.sample.negative for output in job.todo}
    table = encode_prompts(texts, job.recipe.text, job.dtype, job.device)
    models = load_models(job.recipe, job.weights, job.dtype, job.device)
    batches = [job.todo[start : start + sampling.batch_size] for start in range(0, len(job.todo), sampling.batch_size)]
    with JobProgress("sampling", len(batches) * sampling.num_steps, console=console) as progress:
        for batch in batches:
            started = time.perf_counter()
            clips = _make_batch(job, models, table, batch, progress)
            seconds = time.perf_counter() - started
            for output, video_CTHW in zip(batch, clips.video, strict=True):
                output.record.unlink(missing_ok=True)  # until the new clip has its own record, it has none
                write_sample(output.media.with_suffix(""), video_CTHW, sampling.fps_save)
                write_record(output.record, _record(job, output, clips, seconds))


def _make_batch(job: Job, models: Generator, table: PromptTable, batch: list[Output], progress: JobProgress) -> Clips:
    samples = [output.sample for output in batch]
    sampling = job.recipe.sampling
    first, last = samples[0].index, samples[-1].index
    facts = f"sample {first}" if first == last else f"samples {first} to {last}"
    return generate(
        models,
        sampling,
        job.size,
        [sample.seed for sample in samples],
        table.batch([full_prompt(sample.prompt, sampling) for sample in samples], job.device),
        table.batch([sample.negative for sample in samples], job.device),
        [
            encode_references(models.autoencoder, job.references[sample.references]) if sample.references else None
            for sample in samples
        ],
        on_step=lambda step, steps: progress.advance(facts),
    )


def _record(job: Job, output: Output, clips: Clips, seconds: float) -> dict[str, Any]:
    frames, height, width = clips.video.shape[2:]
    return {
        "file": output.media.name,
        **identity(output.sample, job.recipe, job.weights),
        "encoded_prompt": full_prompt(output.sample.prompt, job.recipe.sampling),
        "condition": job.recipe.sampling.cond_type,
        "frames": frames,
        "height": height,
        "width": width,
        "fps": job.recipe.sampling.fps_save,
        "evaluations": clips.evaluations,
        "batch": len(clips.video),
        "seconds": round(seconds, 3),
        "device": str(job.device),
        "versions": versions(),
    }


def _weights(source: str | None, key: str, ema: bool) -> str | None:
    return None if source is None else str(find_weights(source, key, ema=ema))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OsoraError(f"cannot make the folder {folder}: {error.strerror}. Choose another --save-dir.") from error


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
