"""Clips that a run never trains on: read once, cut as its own."""

from collections.abc import Iterator

from opensora_cli.data.loader import Batch, build_loader
from opensora_cli.reconstruction.clips import one_by_one
from opensora_cli.training.looks import shared_out
from schemas.recipes import TrainRecipe, VaeTrainRecipe


def held_out_clips(recipe: TrainRecipe | VaeTrainRecipe, rank: int, size: int) -> Iterator[tuple[int, Batch]]:
    """Return one rank's share of the held-out clips that a recipe looks at, numbered, each alone in a batch.

    Shares are equal, so the last clips may come twice. Raises OsoraError when the table cannot be read or none of its clips
    fits a bucket.
    """
    config = recipe.validation
    plain = {"num_workers": 0, "cached_video": False, "cached_text": False}
    loader = build_loader(
        recipe.dataset.model_copy(update={"data_path": config.data_path, **plain}),
        one_by_one(recipe.buckets),
        compression=recipe.pixels_per_token,
        frame_compression=recipe.ae.time_compression_ratio,
        seed=recipe.seed,
    )
    count = min(config.num_samples, loader.batches_per_epoch(0))
    return ((number, next(loader.epoch(0, number))) for number in shared_out(count, rank, size))
