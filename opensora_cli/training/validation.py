"""Looking at clips that training never sees: their reconstructions and quality, at an interval."""

from collections.abc import Sequence

import torch
from torch import Tensor

from opensora_cli.data.loader import build_loader
from opensora_cli.reconstruction.clips import one_by_one
from opensora_cli.reconstruction.quality import grid, mean_quality, measure, reconstruct
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.vae_objective import VaeObjective
from opensora_models.vae_loss.lpips import Lpips, find_lpips, load_lpips
from schemas.recipes import VaeTrainRecipe

SHOWN_CLIPS, SHOWN_FRAMES = 4, 6


class Validation:
    """The held-out clips, (3, T, H, W) in [-1, 1] each, and the autoencoder that is asked for them."""

    def __init__(
        self, objective: VaeObjective, clips: Sequence[Tensor], lpips: Lpips | None, every: int, device: torch.device
    ) -> None:
        self.objective = objective
        self.clips = clips
        self.lpips = lpips
        self.every = every
        self.device = device

    def run(self, update: int, metrics: Metrics) -> None:
        """Reconstruct the clips one by one and record their mean quality, and pictures of the first few."""
        self.objective.module.eval()
        found = []
        for number, clip_CTHW in enumerate(self.clips):
            video_BCTHW = clip_CTHW[None].to(self.device)
            reconstruction_BCTHW = reconstruct(self.objective.ae, video_BCTHW, torch.float32)
            found += measure(reconstruction_BCTHW, video_BCTHW, self.lpips)
            if number < SHOWN_CLIPS:
                picture = grid(clip_CTHW, reconstruction_BCTHW[0], SHOWN_FRAMES)
                metrics.picture(f"validation/clip-{number}", picture, update)
        self.objective.module.train()
        metrics.validation(update, mean_quality(found).metrics())


def build_validation(recipe: VaeTrainRecipe, objective: VaeObjective, device: torch.device) -> Validation | None:
    """Read the held-out clips of a recipe, cut as training's; None where it names none. LPIPS where its weights are here.

    Raises OsoraError when the table cannot be read or none of its clips fits a bucket.
    """
    config = recipe.validation
    if config.data_path is None:
        return None
    loader = build_loader(
        recipe.dataset.model_copy(update={"data_path": config.data_path, "num_workers": 0}),
        one_by_one(recipe.buckets),
        compression=recipe.ae.spatial_compression_ratio,
        seed=recipe.seed,
    )
    clips = [batch.video[0] for batch, _ in zip(loader.epoch(0), range(config.num_samples), strict=False)]
    source = recipe.vae_loss.lpips_from_pretrained
    lpips = None
    if find_lpips(source) is not None:
        lpips = load_lpips(source, "vae_loss.lpips_from_pretrained").to(device)
    return Validation(objective, clips, lpips, config.every, device)
