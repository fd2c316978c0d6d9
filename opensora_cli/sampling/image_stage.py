"""Text to image to video: an image model makes each clip's first frame before the video models are loaded."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from rich.console import Console

from opensora_cli.distributed.process import DTYPES
from opensora_cli.distributed.team import Team
from opensora_cli.progress import JobProgress
from opensora_cli.sampling.batches import Failed, Made, make_batch
from opensora_cli.sampling.image_recipe import image_recipe, image_settings
from opensora_cli.sampling.models import load_models
from opensora_cli.sampling.prompts import PromptTable, WrittenPrompt
from opensora_cli.sampling.request import Sample
from opensora_cli.sampling.size import sample_size
from opensora_cli.sampling.stages import Stages
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig


class ImageStage:
    """Makes the first frames of clips, as [t2i2v] says; its models are in memory only while it is at work."""

    def __init__(
        self, recipe: SampleRecipe, weights: Mapping[str, str | None], device: torch.device, team: Team
    ) -> None:
        self._clips = recipe
        self._recipe = image_recipe(recipe)
        self._weights = {"model": weights["t2i2v.img_flux"], "ae": weights["t2i2v.img_flux_ae"]}
        self._device = device
        self._team = replace(team, everyone_decodes=True)  # each needs every image, as the reference of its clip

    def size(self, config: SamplingConfig) -> tuple[int, int]:
        """Return the image's (height, width) for a clip's settings. Raises OsoraError where there is none."""
        return sample_size(image_settings(self._clips, config), self._recipe.pixels_per_token)

    def prompt(self, sample: Sample, written: WrittenPrompt) -> WrittenPrompt:
        """Return what the image model is told: the prompt as it is, or as it was refined, without what only clips have."""
        return WrittenPrompt(written.refined or sample.prompt, written.refined)

    def make(
        self,
        batches: Sequence[Sequence[Sample]],
        written: Mapping[Sample, WrittenPrompt],
        texts: PromptTable,
        console: Console,
    ) -> dict[Sample, Made | Failed]:
        """Return each sample's image, as the video of one frame; `texts` has the prompts of `prompt`."""
        stages = Stages(self._device)
        with stages.stage("load"):
            models = load_models(self._recipe, self._weights, DTYPES[self._recipe.dtype], self._device, self._team)
        steps = sum(batch[0].config.num_steps for batch in batches)
        found: dict[Sample, Made | Failed] = {}
        with JobProgress("images", steps, console=console) as progress:
            for batch in batches:
                asked = {replace(one, config=image_settings(self._clips, one.config)): one for one in batch}
                prompts = [self.prompt(one, written[one]) for one in batch]
                size = self.size(batch[0].config)
                for made in make_batch(models, texts, list(asked), prompts, size, stages, progress, self._team):
                    clip = asked[made.sample]
                    found[clip] = made if isinstance(made, Made) else Failed(clip, made.error)
        del models
        free_memory(self._device)
        return found


def free_memory(device: torch.device) -> None:
    """Give back what dropped models held, before others are loaded."""
    gc.collect()  # shared-out models hold hooks that point back at them
    if device.type == "cuda":
        torch.cuda.empty_cache()
