"""What a denoiser in training makes of a few prompts: one picture for every look."""

import torch
from torch import Tensor, nn

from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.sampling.contact_sheet import draw_contact_sheet
from opensora_cli.sampling.generate import Generator, generate
from opensora_cli.sampling.prompts import full_prompt
from opensora_cli.sampling.saving import to_frames
from opensora_cli.sampling.size import sample_size
from opensora_cli.training.checkpoint import TrainState
from opensora_cli.training.denoise_objective import DenoiserObjective
from opensora_cli.training.looks import at_rest, shared_out
from opensora_cli.training.metrics import Metrics
from opensora_models.conditions import conditions_of
from opensora_models.text.features import TextFeatures


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
        self.sampling = self.config.sampling()
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
        clips = generate(
            Generator(denoiser, objective.ae, objective.recipe.model),
            self.sampling,
            self.size,
            [self.config.seed + number],
            self.texts[number].to(device),
            self.negative.to(device),
            [None],
        )
        return torch.from_numpy(to_frames(clips.video[0]))


@torch.no_grad()
def training_samples(objective: DenoiserObjective, process: Process) -> TrainingSamples | None:
    """Encode the recipe's prompts; None where it has none."""
    config = objective.recipe.samples
    if not config.prompts:
        return None
    sampling = config.sampling()

    def encoded(prompt: str) -> TextFeatures:
        return objective.features([prompt]).to("cpu")

    with objective.with_text_encoders():
        texts = [encoded(full_prompt(prompt, sampling)) for prompt in config.prompts]
        return TrainingSamples(objective, texts, encoded(""), process)
