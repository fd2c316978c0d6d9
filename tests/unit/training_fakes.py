"""A tiny objective and loader, so that the loop is tested without models or clips."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from opensora_cli.data.position import History
from opensora_cli.distributed.process import Process
from opensora_cli.training.checkpoint import Checkpoints
from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.objective import Adversary, Loss
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.trainer import Trainer
from schemas.recipes import VaeTrainRecipe


@dataclass(frozen=True)
class FakeBatch:
    video: Tensor
    rows: list[int]
    bad: list[tuple[int, str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    bucket: str = "any"
    fps: list[float] = field(default_factory=list)
    latents: None = None

    def named_tensors(self) -> dict[str, Tensor]:
        return {"video": self.video}

    def to(self, device: torch.device) -> "FakeBatch":
        return self


class FakeLoader:
    """Five batches an epoch; batch i of epoch e is always the same."""

    batches = 5

    def __init__(self, bad: dict[int, list[tuple[int, str, str]]] | None = None) -> None:
        self.bad = bad or {}

    def epoch(self, epoch: int, start: int = 0, before: History = ()) -> Iterator[FakeBatch]:
        for index in range(start, self.batches):
            x = torch.randn(4, 3, generator=keyed_generator("data", epoch, index))
            yield FakeBatch(x, rows=[4 * index + i for i in range(4)], bad=self.bad.get(index, []))


class FakeObjective:
    """Fit a linear map with noise that comes from the draws."""

    adversary: Adversary | None = None
    encoding = None

    def __init__(self, *nan_at: int) -> None:
        with seeded_init(0):
            self.module: nn.Module = nn.Linear(3, 1)
        self.nan_at = nan_at
        self.calls = 0

    def losses(self, batch: FakeBatch, draws: Draws) -> Iterator[Loss]:
        target = batch.video.sum(dim=1, keepdim=True)
        noise = 0.1 * torch.randn(target.shape, generator=draws.generator("noise"))
        loss = (self.module(batch.video) - target - noise).square().mean()
        self.calls += 1
        yield Loss(loss * float("nan") if self.calls in self.nan_at else loss, {"double": 2 * loss})


class SilentDisplay:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, record: object) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def recipe(**tables: object) -> VaeTrainRecipe:
    base: dict[str, object] = {
        "kind": "vae-train",
        "dtype": "fp32",
        "epochs": 4,
        "optim": {"lr": 0.05, "ema_decay": 0.9},
        "checkpoint": {"every": 3, "keep_n_latest": 2},
        "logging": {"tensorboard": False},
    }
    return VaeTrainRecipe.model_validate(base | tables)


def trainer(
    path: Path, config: VaeTrainRecipe, objective: FakeObjective | None = None, loader: FakeLoader | None = None
) -> Trainer:
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    boards = {"tensorboard": config.logging.tensorboard, "wandb_project": config.logging.wandb_project}
    metrics = Metrics(folder, SilentDisplay(), rank=0, log_every=1, **boards)  # type: ignore[arg-type]
    return Trainer(
        config,
        objective or FakeObjective(),
        loader or FakeLoader(),  # type: ignore[arg-type]  # the loop only asks for epochs
        Checkpoints(folder.checkpoints, config.checkpoint, torch.float32),
        metrics,
        Process(0, 1, torch.device("cpu")),
    )
