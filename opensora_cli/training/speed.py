"""How fast a run is: clips and tokens a second, the share of the GPU's peak, and what the rest of the time went into."""

from collections.abc import Sequence

import torch

from opensora_cli.data.dataset import Batch
from opensora_cli.distributed.process import Process
from opensora_cli.planning.coded import Extent, latent_size
from opensora_cli.planning.denoised import LatentClips, text_tokens
from opensora_cli.planning.denoising import denoiser_costs
from opensora_cli.planning.hardware import bf16_flops
from opensora_cli.planning.precision import Precision
from opensora_cli.training.clock import DeviceClock
from schemas.recipes import RunRecipe, TrainRecipe


class Speed:
    """Turns the seconds of an update into metrics."""

    def __init__(self, recipe: RunRecipe, process: Process, encoding: DeviceClock | None) -> None:
        self.recipe = recipe
        self.process = process
        self.encoding = encoding
        self._peak: float | None = None
        if process.device.type == "cuda" and recipe.dtype == "bf16":
            self._peak = bf16_flops(torch.cuda.get_device_name(process.device))

    def metrics(self, batches: Sequence[Batch], seconds: float, data_seconds: float) -> dict[str, float]:
        """Return the metrics of an update over all processes; ask when the device has done its work.

        Processes see batches of about equal cost, so this one's stand for all. `mfu` counts what the denoiser has to
        compute, forward and backward, and neither what is computed again nor the encoders.
        """
        ranks = self.process.data_parallel.size
        samples = sum(len(batch.rows) for batch in batches) * ranks
        found = {"samples": samples, "samples_per_second": samples / seconds, "data_share": data_seconds / seconds}
        if self.encoding is not None:
            found["encode_share"] = self.encoding.take() / seconds
        if isinstance(self.recipe, TrainRecipe):
            tokens, flops = self._work(self.recipe, batches)
            found["tokens_per_second"] = tokens * ranks / seconds
            if self._peak is not None:
                found["mfu"] = flops * ranks / (seconds * self._peak * self.process.world_size)
        return found

    def _work(self, recipe: TrainRecipe, batches: Sequence[Batch]) -> tuple[int, int]:
        """Return this process's tokens, text included, and the FLOPs that training the denoiser on them takes."""
        costs, text = denoiser_costs(recipe.model, Precision.of(recipe.dtype, "cpu")), text_tokens(recipe)
        tokens = work = 0
        for batch in batches:
            latents, clips = _latents(recipe, batch), len(batch.rows)
            tokens += clips * (costs.image_tokens(latents) + text)
            if self._peak is not None:  # nothing else asks, and a shape's first answer takes a while
                flops = costs.flops(LatentClips(clips, latents, text))
                # Frozen weights need no gradient of their own: a third less.
                work += clips * (flops.training() - (flops.products if recipe.lora is not None else 0))
        return tokens, work


def _latents(recipe: TrainRecipe, batch: Batch) -> Extent:
    """Return the latents' frames, rows and columns of a batch."""
    frames, height, width = (batch.video if batch.latents is None else batch.latents.moments).shape[2:]
    return latent_size(recipe.ae, (frames, height, width)) if batch.latents is None else (frames, height, width)
