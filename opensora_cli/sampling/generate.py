"""Encoded prompts, seeds and encoded references to pixels: everything between the models and the files.

Legend: B samples, C channels, T frames (of the latent, or of the video), H W pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from opensora_cli.distributed.team import Team
from opensora_cli.planning.denoised import LatentClips
from opensora_cli.sampling.branches import in_turn
from opensora_cli.sampling.denoise import Denoised, denoise, denoise_distilled
from opensora_cli.sampling.offload import Waiting
from opensora_cli.sampling.stages import Stages
from opensora_models.clip_decoding import decode_clip
from opensora_models.diffusion.build import build_process
from opensora_models.diffusion.condition import References, inference_condition, place_references, trim_repeats
from opensora_models.diffusion.guidance import GuidanceScales
from opensora_models.diffusion.noise import latent_noise
from opensora_models.diffusion.process import Process
from opensora_models.diffusion.schedule import get_schedule
from opensora_models.diffusion.solver import OnStep, is_flow_solver
from opensora_models.mmdit.attention import preferred_kernels
from opensora_models.text.features import TextFeatures
from schemas.autoencoder import AutoencoderConfig
from schemas.denoiser import DenoiserConfig, MMDiTConfig
from schemas.diffusion import AnyDiffusion, DiffusionConfig
from schemas.sampling import SamplingConfig

ModelName = Literal["denoiser", "autoencoder"]
ALONE = Team()


class Autoencoder(Protocol):
    """What sampling uses of an autoencoder; pixels are in [-1, 1], latents are scaled."""

    latent_channels: int
    causal: bool

    @property
    def config(self) -> AutoencoderConfig:
        """Return its schema."""
        ...

    @property
    def strides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels for each latent pixel."""
        ...

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        """Return the posterior's mean."""
        ...

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return pixels."""
        ...

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the latent's frames, height and width."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""
        ...


@dataclass(frozen=True)
class Generator:
    """The two models of a sampling job, and what the denoiser's recipe says of it.

    `waiting` are those that are in host memory while they are not `at_work`, which is on the device `works_on`.
    """

    denoiser: nn.Module
    autoencoder: Autoencoder
    config: DenoiserConfig
    waiting: Mapping[ModelName, Waiting] = field(default_factory=dict)
    works_on: torch.device | None = None
    diffusion: AnyDiffusion = field(default_factory=DiffusionConfig)

    @property
    def device(self) -> torch.device:
        """Where the models are while they are at work."""
        return self.works_on or next(self.denoiser.parameters()).device

    @cached_property
    def process(self) -> Process:
        """How noise and latents are mixed."""
        return build_process(self.diffusion)

    def at_work(self, name: ModelName) -> AbstractContextManager[None]:
        """Return a context inside which a model can be used."""
        return self.waiting[name].at_work() if name in self.waiting else nullcontext()


@dataclass(frozen=True)
class Clips:
    """The `video` (B, 3, T, H, W) float32, about [-1, 1] and not clamped, and the model evaluations for each sample.

    `reused` counts for every sample those that the step cache cut short.
    Of a batch that a team of processes makes, each has its `own` clips, which may be none.
    """

    video: Tensor
    own: Sequence[int]
    evaluations: int
    reused: Sequence[int]


@torch.no_grad()
def generate(
    models: Generator,
    config: SamplingConfig,
    size: tuple[int, int],
    seeds: Sequence[int],
    caption: TextFeatures,
    negative: TextFeatures,
    references: References,
    on_step: OnStep | None = None,
    stages: Stages | None = None,
    team: Team = ALONE,
) -> Clips:
    """Make one clip per seed. `size` is (height, width) in pixels; `references` are latents, see `encode_references`.

    Every process of a `team` has to ask for the same batch; they denoise it together and share out the decoding.

    A sample depends on its seed, prompt and references alone, not on the batch it is made in: to the bit on a CPU, and
    up to the rounding of matrix products on a GPU. `stages` gets the seconds of denoising and decoding.
    """
    stages = stages or Stages(torch.device("cpu"))
    model = models.config
    assert isinstance(model, MMDiTConfig)
    noise_BCTHW = draw_noise(models, config, size, seeds, model.patch_size)
    kernels = preferred_kernels(config.attention, models.device)
    with stages.stage("denoise"), models.at_work("denoiser"), kernels:
        denoised = _denoise(models, model, config, noise_BCTHW, caption, negative, references, on_step, team)
    own = team.own(range(len(seeds)))
    with stages.stage("decode"), models.at_work("autoencoder"):
        video_BCTHW = _decode(models.autoencoder, config, denoised.latent, references, own)
    return Clips(video_BCTHW, own, denoised.evaluations, denoised.reused)


def _decode(
    ae: Autoencoder, config: SamplingConfig, latent_BCTHW: Tensor, references: References, own: Sequence[int]
) -> Tensor:
    if not own:
        return latent_BCTHW.new_zeros(0, 3, 0, 0, 0)
    time_stride = ae.strides[0]
    if config.cond_type.startswith("i2v"):  # what the user gave, not what the model made of it
        latent_BCTHW = place_references(
            latent_BCTHW, config.cond_type, references, time_stride=time_stride, causal=ae.causal
        )
    dtype = next(ae.parameters()).dtype
    latents = [latent_BCTHW[item : item + 1].to(dtype) for item in own]
    video_BCTHW = torch.cat([decode_clip(ae, one_BCTHW, config.num_frames).float() for one_BCTHW in latents])
    return trim_repeats(video_BCTHW, config.cond_type, time_stride=time_stride, causal=ae.causal)


def draw_noise(
    models: Generator, config: SamplingConfig, size: tuple[int, int], seeds: Sequence[int], patch_size: int
) -> Tensor:
    """Draw every sample's noise on the CPU from a generator of its own, then move it to the denoiser's device."""
    ae = models.autoencoder
    latent_frames = ae.latent_size(config.num_frames, *size)[0]
    draws = [
        latent_noise(
            torch.Generator().manual_seed(seed),
            channels=ae.latent_channels,
            latent_frames=latent_frames,
            height=size[0],
            width=size[1],
            spatial_stride=ae.strides[1],
            patch_size=patch_size,
        )
        for seed in seeds
    ]
    return torch.cat(draws).to(models.device)


@torch.no_grad()
def encode_references(autoencoder: Autoencoder, clips: Sequence[Tensor]) -> list[Tensor]:
    """Encode each reference clip (3, T, H, W) on its own, as the posterior's mean: the same file gives the same latent."""
    like = next(autoencoder.parameters())
    return [autoencoder.encode(clip_CTHW[None].to(like))[0].float() for clip_CTHW in clips]


def _denoise(
    models: Generator,
    model: MMDiTConfig,
    config: SamplingConfig,
    noise_BCTHW: Tensor,
    caption: TextFeatures,
    negative: TextFeatures,
    references: References,
    on_step: OnStep | None,
    team: Team,
) -> Denoised:
    ae, patch, solver = models.autoencoder, model.patch_size, config.solver
    assert is_flow_solver(solver), "a rule refuses the others"
    frames, height, width = noise_BCTHW.shape[2:]
    times = get_schedule(
        config.num_steps, height * width // patch**2, frames, shift=config.shift, shift_alpha=config.flow_shift
    )
    condition_BCTHW = None
    if model.cond_embed:
        condition_BCTHW = inference_condition(
            noise_BCTHW, config.cond_type, references, time_stride=ae.strides[0], causal=ae.causal
        )
    if model.guidance_embed:
        return denoise_distilled(
            models.denoiser,
            noise_BCTHW,
            caption,
            times=times,
            guidance=config.guidance,
            patch_size=patch,
            condition_BCTHW=condition_BCTHW,
            solver=solver,
            on_step=on_step,
            cache_threshold=config.cache_threshold,
        )
    has_condition = condition_BCTHW is not None and bool(condition_BCTHW[:, 0].any())
    most = team.branches.most(3 if has_condition else 2)
    clips = LatentClips(len(noise_BCTHW) * most, (frames, height, width), caption["t5"].shape[1])
    return denoise(
        models.denoiser,
        noise_BCTHW,
        caption,
        negative,
        times=times,
        scales=guidance_scales(config),
        patch_size=patch,
        condition_BCTHW=condition_BCTHW,
        solver=solver,
        in_turn=in_turn(
            config.cfg_branches, model, clips, next(models.denoiser.parameters()).dtype, models.device, team
        ),
        on_step=on_step,
        shared=team.branches,
        cache_threshold=config.cache_threshold,
    )


def guidance_scales(config: SamplingConfig) -> GuidanceScales:
    """Return the recipe's guidance."""
    return GuidanceScales(
        text=config.guidance,
        image=config.guidance_img,
        text_oscillates=config.text_osci,
        image_oscillates=config.image_osci,
        image_grows_over_frames=config.scale_temporal_osci,
        time_min=config.guidance_t_min,
        time_max=config.guidance_t_max,
    )
