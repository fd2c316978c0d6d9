"""Encoded prompts, seeds and encoded references to pixels with the denoisers of Open-Sora 1.x, clips in a row among them.

Legend: B samples, C channels, T frames (of the latent, or of the video), H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_cli.distributed.team import Team
from opensora_cli.planning.denoised import LatentClips
from opensora_cli.sampling.branches import in_turn
from opensora_cli.sampling.denoise_latents import Steps, denoise_latents
from opensora_cli.sampling.generate import ALONE, Clips, Generator, guidance_scales
from opensora_cli.sampling.stages import Stages
from opensora_cli.training.draws import keyed_generator
from opensora_models.clip_decoding import decode_clip
from opensora_models.conditions import PixelSize, clip_conditions, text_conditions
from opensora_models.diffusion.guidance import GuidanceScales, oscillate
from opensora_models.diffusion.mask_strategy import References, apply_strategies, continue_loop, strategy_of
from opensora_models.diffusion.process import ClipSize, Purpose
from opensora_models.diffusion.solver import OnStep
from opensora_models.text.features import TextFeatures
from schemas.autoencoder.frames import frames_of
from schemas.denoiser import LatentDenoiser
from schemas.diffusion import IDDPMConfig
from schemas.sampling import SamplingConfig


@dataclass(frozen=True)
class _Job:
    """One batch: what stays the same over its loops."""

    models: Generator
    config: SamplingConfig
    size: tuple[int, int]
    seeds: Sequence[int]
    stages: Stages
    team: Team

    @property
    def latent_size(self) -> tuple[int, int, int]:
        return self.models.autoencoder.latent_size(self.config.num_frames, *self.size)


@torch.no_grad()
def generate_latents(
    models: Generator,
    config: SamplingConfig,
    size: tuple[int, int],
    seeds: Sequence[int],
    captions: Sequence[TextFeatures],
    references: References,
    on_step: OnStep | None = None,
    stages: Stages | None = None,
    team: Team = ALONE,
) -> Clips:
    """Make one clip per seed, as `generate` does; of several loops each has its own `captions`, and goes on from the last.

    Which frames of the references are given is said by `config.mask_strategy`, or else by `config.cond_type`.
    """
    job = _Job(models, config, size, seeds, stages or Stages(torch.device("cpu")), team)
    strategies: list[str] = [_strategy(job, clips) for clips in references]
    given: References = references
    clips_BCTHW: list[Tensor] = []
    evaluations = 0
    for loop, caption in enumerate(captions):
        if loop:
            given, strategies = _continued(job, given, strategies, clips_BCTHW[-1], loop)
        latent_BCTHW, count = _denoised(job, caption, given, strategies, loop, on_step)
        evaluations += count
        own = team.own(range(len(seeds))) if len(captions) == 1 else range(len(seeds))
        clips_BCTHW.append(_decoded(job, latent_BCTHW, own))
    kept = team.own(range(len(seeds)))
    whole_BCTHW = clips_BCTHW[0] if len(captions) == 1 else _joined(job, clips_BCTHW)[list(kept)]
    return Clips(whole_BCTHW, kept, evaluations, (0,) * len(seeds))


def _strategy(job: _Job, clips: Sequence[Tensor] | None) -> str:
    if job.config.mask_strategy:
        return job.config.mask_strategy
    frames = clips[0].shape[1] if clips else 0
    return strategy_of(job.config.cond_type, job.latent_size[0], frames)


def _denoised(
    job: _Job, caption: TextFeatures, given: References, strategies: Sequence[str], loop: int, on_step: OnStep | None
) -> tuple[Tensor, int]:
    """Return the latents of one loop, and how often the model was evaluated for each sample."""
    models, config, device = job.models, job.config, job.models.device
    model = models.config
    assert isinstance(model, LatentDenoiser)
    frames, rows, columns = job.latent_size
    noise_BCTHW = _drawn(job, lambda seed: _start(seed, loop))
    start_BCTHW, share_BT = apply_strategies(noise_BCTHW, given, strategies, loop, config.align)
    told = clip_conditions(
        PixelSize(config.num_frames, *job.size), [float(config.fps_save)] * len(job.seeds), device
    ) | text_conditions(caption)
    text = caption["t5"].shape[1] if "t5" in caption else 1
    branches = LatentClips(2 * len(job.seeds), job.latent_size, text)

    def one_by_one() -> bool:
        dtype = next(models.denoiser.parameters()).dtype
        return in_turn(config.cfg_branches, model, branches, dtype, device, job.team)

    def draw(step: int, purpose: Purpose) -> Tensor:
        return _drawn(job, lambda seed: keyed_generator("sampling", seed, loop, step, purpose))

    with job.stages.stage("denoise"), models.at_work("denoiser"):
        steps = Steps(config.num_steps, config.solver, _scale(config), _guided_channels(models), one_by_one())
        done = denoise_latents(
            models.denoiser,
            models.process,
            start_BCTHW,
            ClipSize(config.num_frames, *job.size, frames, rows * columns // model.patch_side**2),
            told,
            steps,
            draw=draw,
            mask_BT=share_BT if bool((share_BT < 1).any()) else None,
            on_step=on_step,
        )
    return done.latent, done.evaluations


def _start(seed: int, loop: int) -> torch.Generator:
    """Return where the noise that a clip starts from comes from: the first one's from the seed itself."""
    return keyed_generator("noise", seed, loop) if loop else torch.Generator().manual_seed(seed)


def _drawn(job: _Job, generator: Callable[[int], torch.Generator]) -> Tensor:
    """Draw every sample's noise from a generator of its own, on the CPU."""
    size = (job.models.autoencoder.latent_channels, *job.latent_size)
    draws = [torch.randn(size, generator=generator(seed)) for seed in job.seeds]
    return torch.stack(draws).to(job.models.device)


def _guided_channels(models: Generator) -> int | None:
    """Return the channels that guidance changes: Open-Sora 1.0 leaves the last latent channel alone."""
    config = models.diffusion
    return config.cfg_channel if isinstance(config, IDDPMConfig) else None


def _scale(config: SamplingConfig) -> Callable[[int, float], float]:
    scales: GuidanceScales = guidance_scales(config)

    def scale(step: int, time: float) -> float:
        if not scales.act_at(time):
            return 1.0
        return oscillate(scales.text, step) if scales.text_oscillates else scales.text

    return scale


def _decoded(job: _Job, latent_BCTHW: Tensor, own: Sequence[int]) -> Tensor:
    ae = job.models.autoencoder
    if not own:
        return latent_BCTHW.new_zeros(0, 3, 0, 0, 0)
    dtype = next(ae.parameters()).dtype
    with job.stages.stage("decode"), job.models.at_work("autoencoder"):
        latents = [latent_BCTHW[item : item + 1].to(dtype) for item in own]
        return torch.cat([decode_clip(ae, one_BCTHW, job.config.num_frames).float() for one_BCTHW in latents])


def _continued(
    job: _Job, given: References, strategies: Sequence[str], last_BCTHW: Tensor, loop: int
) -> tuple[References, list[str]]:
    """Add the last clip, encoded again, to the references, and its end to what the next one is given."""
    ae, config = job.models.autoencoder, job.config
    like = next(ae.parameters())
    with job.stages.stage("references"), job.models.at_work("autoencoder"):
        encoded_BCTHW = torch.cat([ae.encode(clip_CTHW[None].to(like)).float() for clip_CTHW in last_BCTHW])
    return continue_loop(
        given, strategies, encoded_BCTHW, loop, config.condition_frame_length, config.condition_frame_edit
    )


def _joined(job: _Job, clips_BCTHW: Sequence[Tensor]) -> Tensor:
    """Return clips one behind the other, each without the frames that it was given of the one before."""
    given = frames_of(job.models.autoencoder.config, job.config.condition_frame_length)
    return torch.cat([clips_BCTHW[0], *(clip_BCTHW[:, :, given:] for clip_BCTHW in clips_BCTHW[1:])], dim=2)
