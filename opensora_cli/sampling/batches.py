"""Samples that are made together, and what comes of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from opensora_cli.distributed.team import Team
from opensora_cli.progress import JobProgress
from opensora_cli.sampling.generate import ALONE, Clips, Generator, encode_references, generate
from opensora_cli.sampling.generate_latents import generate_latents
from opensora_cli.sampling.prompts import PromptTable, WrittenPrompt
from opensora_cli.sampling.references import first_frame, read_references
from opensora_cli.sampling.request import Sample
from opensora_cli.sampling.saving import suffix_of, write_sample
from opensora_cli.sampling.stages import Stages, peak_bytes
from schemas.denoiser import LatentDenoiser
from schemas.errors import OsoraError


@dataclass(frozen=True)
class Made:
    """A finished sample: `video` (3, T, H, W) float32 on the CPU, about [-1, 1] and not clamped, and what it took."""

    sample: Sample
    video: Tensor
    prompt: WrittenPrompt
    evaluations: int
    batch: int
    seconds: dict[str, float]
    """By stage: text and load of the whole job so far, the others of the batch."""
    peak_bytes: int
    """The most memory in use since the process began: of the GPU, else of the process."""
    image: "Made | None" = None
    """The first frame, where an image model made it: a video of one frame."""
    reused: int = 0
    """Evaluations that the step cache cut short, of all `evaluations`."""

    def save(self, path: str | Path) -> Path:
        """Write the clip or image, and return its path: the suffix is that of the recipe's output_format if there is none.

        Raises OsoraError for an unknown suffix, and when it cannot be written.
        """
        path = Path(path)
        if not path.suffix:
            path = path.with_name(path.name + suffix_of(self.sample.config))
        way_out = "Use --set sampling.output_format=lossless."
        return write_sample(path, self.video, self.sample.config.fps_save, odd_sides=way_out)


@dataclass(frozen=True)
class Failed:
    """A sample that could not be made, and why."""

    sample: Sample
    error: OsoraError


def plan_batches(samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    """Return batches of samples with equal settings, and so of one size, in the order of each one's first sample."""
    groups: dict[object, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.config, []).append(sample)
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]


def steps_of(batch: Sequence[Sample]) -> int:
    """Return the steps that a batch takes, over all its loops."""
    return batch[0].config.num_steps * batch[0].config.loop


def make_batch(
    models: Generator,
    texts: PromptTable,
    batch: Sequence[Sample],
    prompts: Sequence[WrittenPrompt],
    size: tuple[int, int],
    job: Stages,
    progress: JobProgress,
    team: Team = ALONE,
    images: Mapping[Sample, Made] = MappingProxyType({}),
) -> Iterator[Made | Failed]:
    """Yield what comes of each sample of a batch; one with a bad reference does not hold up the others.

    `job` has the seconds of what was done once for all batches. Every process of a team has to be at the same batch, and
    yields its own share; the leader also yields the samples that the team could not begin with. `images` are the first
    frames of samples that need one.
    """
    device = models.device
    stages, whole = Stages(device), steps_of(batch)
    steps = _Steps(progress, batch)
    with stages.stage("references"):
        latents = {sample: _references(models, sample, size, images.get(sample)) for sample in batch}
    yield from _not_begun(latents, team)
    good = [
        (sample, prompt)
        for sample, prompt in zip(batch, prompts, strict=True)
        if not isinstance(latents[sample], Failed)
    ]
    try:
        clips = _generate(models, texts, good, latents, size, steps, stages, team) if good else None
    except torch.OutOfMemoryError as error:
        if team.size > 1:  # the others are in the middle of the step, and cannot leave it alone
            raise OsoraError(
                f"not enough memory on {device}: {_first_line(error)}. Share out more, or make smaller clips."
            ) from error
        reason = f"not enough memory on {device} for {len(good)} samples of {size[0]} x {size[1]}: {_first_line(error)}"
        advice = (
            "Use a smaller sampling.batch_size, sampling.cfg_branches = in_turn, fewer frames or a lower resolution."
        )
        yield from (Failed(sample, OsoraError(f"{reason}. {advice}")) for sample, _ in good)
        clips = None
    progress.advance(steps.facts, whole - steps.done)
    if clips is not None:
        seconds = {**job.rounded(), **stages.rounded()}
        for item, video_CTHW in zip(clips.own, clips.video.cpu(), strict=True):
            sample, prompt = good[item]
            took = clips.evaluations, len(good), seconds, peak_bytes(device)
            yield Made(sample, video_CTHW, prompt, *took, images.get(sample), clips.reused[item])


Latents = dict[Sample, list[Tensor] | Failed | None]


def _not_begun(latents: Latents, team: Team) -> Iterator[Failed]:
    """Let the team give up every sample whose references one of them could not read; the leader yields those."""
    good = team.agree([not isinstance(latent, Failed) for latent in latents.values()])
    for sample, fine in zip(list(latents), good, strict=True):
        latent = latents[sample]
        if not fine and not isinstance(latent, Failed):
            latents[sample] = latent = Failed(sample, OsoraError("another process could not read its references"))
        if isinstance(latent, Failed) and team.is_leader:
            yield latent


class _Steps:
    """Shows the steps of one batch, and knows how many were done."""

    def __init__(self, progress: JobProgress, batch: Sequence[Sample]) -> None:
        self.done = 0
        self.facts = batch[0].label if len(batch) == 1 else f"{batch[0].label} and {len(batch) - 1} more"
        self._progress = progress

    def __call__(self, step: int, steps: int) -> None:
        self.done += 1
        self._progress.advance(self.facts)


def _references(
    models: Generator, sample: Sample, size: tuple[int, int], image: Made | None
) -> list[Tensor] | Failed | None:
    autoencoder = models.autoencoder
    if image is not None:
        return encode_references(autoencoder, [first_frame(image.video, size)])
    if not sample.references:
        return None
    try:
        clips = read_references(sample.references, sample.config, causal=autoencoder.causal, size=size)
    except OsoraError as error:
        return Failed(sample, error)
    with models.at_work("autoencoder"):
        return encode_references(autoencoder, clips)


def _generate(
    models: Generator,
    texts: PromptTable,
    good: Sequence[tuple[Sample, WrittenPrompt]],
    latents: Latents,
    size: tuple[int, int],
    steps: _Steps,
    stages: Stages,
    team: Team,
) -> Clips:
    device, config = models.device, good[0][0].config
    found = [latents[sample] for sample, _ in good]
    references = [one for one in found if not isinstance(one, Failed)]
    seeds = [sample.seed for sample, _ in good]
    if isinstance(models.config, LatentDenoiser):
        loops = zip(*(prompt.of_loops(config.loop) for _, prompt in good), strict=True)
        captions = [texts.batch(list(loop), device) for loop in loops]
        return generate_latents(models, config, size, seeds, captions, references, steps, stages, team)
    caption = texts.batch([prompt.encoded for _, prompt in good], device)
    negative = texts.batch([sample.negative for sample, _ in good], device)
    return generate(models, config, size, seeds, caption, negative, references, steps, stages, team)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
