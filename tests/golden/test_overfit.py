"""The whole training path learns: on four clips, seen again and again with fresh noise, the loss has to fall."""

from collections.abc import Iterator
from pathlib import Path

import torch

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.data.loader import Batch, build_loader
from opensora_cli.data.position import History
from opensora_cli.distributed.process import Process
from opensora_cli.training.checkpoint import Checkpoints
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.token_objective import TokenObjective
from opensora_cli.training.trainer import Trainer
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve

UPDATES = 120


class CachedBatch:
    """A loader that read one batch and gives it out for ever."""

    fingerprint = "cached"

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def epoch(self, epoch: int, start_batch: int = 0, before: History = ()) -> Iterator[Batch]:
        while True:
            yield self.batch


class Losses:
    """A display that only remembers."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, record: dict[str, float]) -> None:
        self.values.append(record["loss"])

    def note(self, text: str) -> None: ...


def give_unit_latents(objective: TokenObjective, batch: Batch) -> None:
    """Make the untrained autoencoder like a trained one: latents of unit size that say nearly all by their mean."""
    ae = objective.ae
    with torch.no_grad():
        ae.quant_conv.bias[ae.latent_channels :] = -12.0
        size = float(ae.encode(batch.video).std())
    ae.config = ae.config.model_copy(update={"scale_factor": ae.config.scale_factor / size})


def test_the_tiny_model_learns_four_clips_by_heart(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    prepare_demo(tmp_path / "demo", clips=24, seed=1)
    texts = [f"text.{name}.from_pretrained={tmp_path}/demo/{name}" for name in ("t5", "clip")]
    recipe = resolve(
        "tiny/train",
        sets=[
            f"dataset.data_path={tmp_path}/demo/meta.csv",
            "dataset.num_workers=0",
            'buckets."64px".9=[1.0, 4]',
            f"max_steps={UPDATES}",
            "optim.lr=3e-3",
            "optim.schedule=cosine",
            *texts,
        ],
        unsets=["ae.from_pretrained", 'buckets."64px".17', "dropout_ratio.t5", "dropout_ratio.clip", "optim.ema_decay"],
    ).recipe
    assert isinstance(recipe, TrainRecipe)
    loader = build_loader(recipe.dataset, recipe.buckets, compression=16, seed=recipe.seed)
    batch = next(iter(loader.epoch(0)))
    assert len(set(batch.text)) == 4
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    losses = Losses()
    process = Process(0, 1, torch.device("cpu"))
    metrics = Metrics(run, losses, rank=0, log_every=50, tensorboard=False)
    checkpoints = Checkpoints(run.checkpoints, recipe.checkpoint, torch.float32)
    objective = TokenObjective(recipe, process.device)
    give_unit_latents(objective, batch)
    Trainer(recipe, objective, CachedBatch(batch), checkpoints, metrics, process).fit()  # type: ignore[arg-type]
    first, last = sum(losses.values[:5]) / 5, sum(losses.values[-20:]) / 20
    print(f"loss {first:.3f} -> {last:.3f}, {100 * (1 - last / first):.0f} % less")
    assert last <= 0.2 * first
