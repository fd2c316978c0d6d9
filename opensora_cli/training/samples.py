"""What a denoiser in training makes of a few prompts: one picture for every look."""

import torch
from torch import Tensor, nn

from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.sampling.contact_sheet import draw_contact_sheet
from opensora_cli.sampling.generate import Generator, generate
from opensora_cli.sampling.generate_latents import generate_latents
from opensora_cli.sampling.prompts import full_prompt
from opensora_cli.sampling.saving import to_frames
from opensora_cli.sampling.size import sample_size
from opensora_cli.training.checkpoint import TrainState
from opensora_cli.training.denoise_objective import DenoiserObjective
from opensora_cli.training.looks import at_rest, shared_out
from opensora_cli.training.metrics import Metrics
from opensora_models.conditions import conditions_of
from opensora_models.diffusion.build import build_process
from opensora_models.text.features import TextFeatures
from schemas.denoiser import LatentDenoiser
from schemas.recipes import TrainRecipe
from schemas.sampling import SamplingConfig


class _Autocast(nn.Module):
    """The module in training with its products in the recipe's precision; weights are shared, not copied."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.device, self.dtype = device, dtype

    @property
    def conditions(self) -> frozenset[str]:
        """What a denoiser of latents takes."""
        return conditions_of(self.module)

    def forward(self, **inputs: Tensor | None) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            velocity_BND: Tensor = self.module(**inputs)
        return velocity_BND.float()


class TrainingSamples:
    """Prompts of the recipe, encoded and waiting in host memory, and the denoiser that makes clips of them."""

    def __init__(
        self, objective: DenoiserObjective, texts: list[TextFeatures], negative: TextFeatures, process: Process
    ) -> None:
        self.objective = objective
        self.texts, self.negative = texts, negative
        self.process = process
        self.config = objective.recipe.samples
        self.every = self.config.every
        self.sampling = sampling_of(objective.recipe)
        self.size = sample_size(self.sampling, objective.recipe.pixels_per_token)

    def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
        """Make a clip of every prompt and record them as one picture; the main process gets the others' clips."""
        rank, ranks = self.process.data_parallel
        share = shared_out(len(self.texts), rank, ranks)
        with self.objective.with_autoencoder(), at_rest(state, layout, ema=self.config.ema):
            clips_NTHWC = torch.stack([self._clip(number) for number in share])
        if self.process.device.type == "cuda":
            torch.cuda.empty_cache()  # clips have other sizes than batches: their memory would lie about in pieces
        gathered = self.process.gather_tensors(clips_NTHWC)
        if self.process.is_main:
            clips = [list(gathered[number % ranks][number // ranks].numpy()) for number in range(len(self.texts))]
            metrics.samples(update, draw_contact_sheet(zip(clips, self.config.prompts, strict=True)))

    def _clip(self, number: int) -> Tensor:
        """Return the clip of a prompt, (T, H, W, 3) bytes on the CPU."""
        objective, device = self.objective, self.process.device
        denoiser = _Autocast(objective.module, device, DTYPES[objective.recipe.dtype]).eval()
        models = Generator(denoiser, objective.ae, objective.recipe.model, diffusion=objective.recipe.diffusion)
        seeds, caption = [self.config.seed + number], self.texts[number].to(device)
        if isinstance(models.config, LatentDenoiser):
            clips = generate_latents(models, self.sampling, self.size, seeds, [caption], [None])
        else:
            clips = generate(models, self.sampling, self.size, seeds, caption, self.negative.to(device), [None])
        return torch.from_numpy(to_frames(clips.video[0]))


def sampling_of(recipe: TrainRecipe) -> SamplingConfig:
    """Return how a recipe's prompts are sampled while it trains: a process of 1.x by its usual solver, by its line's sizes."""
    sampling = recipe.samples.sampling()
    if not isinstance(recipe.model, LatentDenoiser):
        return sampling
    usual = {"solver": build_process(recipe.diffusion).solvers[0], "text_osci": False, "rules": recipe.dataset.rules}
    return sampling.model_copy(update=usual)


@torch.no_grad()
def training_samples(objective: DenoiserObjective, process: Process) -> TrainingSamples | None:
    """Encode the recipe's prompts; None where it has none."""
    config = objective.recipe.samples
    if not config.prompts:
        return None
    sampling = sampling_of(objective.recipe)

    def encoded(prompt: str) -> TextFeatures:
        return objective.features([prompt]).to("cpu")

    with objective.with_text_encoders():
        texts = [encoded(full_prompt(prompt, sampling)) for prompt in config.prompts]
        # Denoisers of latents have learned what the empty caption is to them.
        negative = texts[0] if isinstance(objective.recipe.model, LatentDenoiser) else encoded("")
        return TrainingSamples(objective, texts, negative, process)
