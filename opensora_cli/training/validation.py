"""The quality of reconstructions of clips that an autoencoder is not trained on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import Process
from opensora_cli.reconstruction.quality import grid, measure, reconstruct
from opensora_cli.training.checkpoint import TrainState
from opensora_cli.training.held_out import held_out_clips
from opensora_cli.training.looks import at_rest
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.vae_objective import VaeObjective
from opensora_models.vae_loss.lpips import Lpips, find_lpips, load_lpips

SHOWN_CLIPS, SHOWN_FRAMES = 4, 6


class ReconstructionLook:
    """Held-out clips by number, (3, T, H, W) in [-1, 1] each, and the autoencoder that is asked for them."""

    def __init__(
        self, objective: VaeObjective, clips: Mapping[int, Tensor], lpips: Lpips | None, process: Process
    ) -> None:
        self.objective = objective
        self.clips = clips
        self.lpips = lpips
        self.process = process
        self.every = objective.recipe.validation.every

    def run(self, update: int, state: TrainState, layout: Layout, metrics: Metrics) -> None:
        """Reconstruct the clips one by one and record their mean quality, and pictures of the first few."""
        found = []
        with at_rest(state, layout, ema=self.objective.recipe.validation.ema):
            for number, clip_CTHW in self.clips.items():
                video_BCTHW = clip_CTHW[None].to(self.process.device)
                reconstruction_BCTHW = reconstruct(self.objective.ae, video_BCTHW, torch.float32)
                found += measure(reconstruction_BCTHW, video_BCTHW, self.lpips)
                if number < SHOWN_CLIPS:
                    picture = grid(clip_CTHW, reconstruction_BCTHW[0], SHOWN_FRAMES)
                    metrics.picture(f"validation/clip-{number}", picture, update)
        metrics.validation(update, self._mean([one.metrics() for one in found]))

    def _mean(self, found: list[dict[str, float]]) -> dict[str, float]:
        """Return the mean over the clips of all processes."""
        names = ["psnr_db", "ssim"] + ["lpips"] * (self.lpips is not None)
        sums = [float(len(found)), *(sum(one[name] for one in found) for name in names)]
        count, *values = self.process.mean(torch.tensor(sums, dtype=torch.float64)).tolist()
        return {name: value / count for name, value in zip(names, values, strict=True)}


def reconstruction_look(objective: VaeObjective, process: Process) -> ReconstructionLook | None:
    """Read this process's held-out clips; None where the recipe names none. LPIPS where its weights are here.

    Raises OsoraError when the table cannot be read or none of its clips fits a bucket.
    """
    recipe = objective.recipe
    if recipe.validation.data_path is None:
        return None
    rank, size = process.data_parallel
    share = held_out_clips(recipe, rank, size)
    # No forward pass of an autoencoder needs the other processes, so no clip is looked at twice.
    clips = {number: batch.video[0] for number, batch in share if number % size == rank}
    source = recipe.vae_loss.lpips_from_pretrained
    lpips = None
    if find_lpips(source) is not None:
        lpips = load_lpips(source, "vae_loss.lpips_from_pretrained").to(process.device)
    return ReconstructionLook(objective, clips, lpips, process)
