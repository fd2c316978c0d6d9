"""What a run records of its speed, where it draws it, and the traces of single updates."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from opensora_cli.distributed.process import Process
from opensora_cli.planning.hardware import bf16_flops
from opensora_cli.training.clock import DeviceClock
from opensora_cli.training.speed import Speed
from schemas.errors import OsoraError
from schemas.resolve import resolve
from tests.unit.training_fakes import FakeBatch, recipe, trainer


def test_tokens_and_the_share_of_the_peak_follow_from_the_models_size() -> None:
    config = resolve("tiny/train", sets=["model.depth=1", "model.depth_single_blocks=0", "dtype=bf16"]).recipe
    clock = DeviceClock(torch.device("cpu"))
    with clock.running():
        pass
    speed = Speed(config, Process(0, 4, torch.device("cpu"), together=2), clock)
    batch = FakeBatch(torch.empty(2, 3, 17, 64, 64), rows=[0, 1])
    found = speed.metrics([batch, batch], seconds=2.0, data_seconds=0.5)  # type: ignore[list-item]
    assert "mfu" not in found, "a CPU has no peak to compare with"
    tokens = (
        5 * 4 * 4 + 24
    )  # 17 frames and 64 pixels: 5 latent frames of 8 x 8, patches of 2 x 2; captions of 24 tokens
    assert found["tokens_per_second"] == 4 * tokens * 2 / 2.0
    assert found["samples"] == 8
    assert found["data_share"] == 0.25
    assert 0 < found["encode_share"] < 1
    assert clock.take() == 0.0
    speed._peak = 1e9
    # Double-stream block of width 96: 8 D^2 for attention, 8 D^2 for the MLP (ratio 2), and attention itself, thrice and more.
    dim, n = 96, tokens
    block = 3 * (n * 2 * (4 * dim**2 + 4 * dim**2) + 2 * dim * dim * 12) + 4 * n * n * dim * 3.5
    mfu = speed.metrics([batch, batch], seconds=2.0, data_seconds=0.0)["mfu"]  # type: ignore[list-item]
    assert mfu == pytest.approx(4 * block * 2 / (2.0 * 1e9 * 4), rel=0.15)  # the rest: input and output layers


def test_peaks_are_found_by_the_names_that_cuda_gives() -> None:
    assert bf16_flops("NVIDIA H200") == bf16_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert bf16_flops("NVIDIA H100 PCIe") == 756.4e12
    assert bf16_flops("NVIDIA A100-SXM4-80GB") == 311.9e12
    assert bf16_flops("Some Other GPU") is None


def test_chosen_updates_are_traced(tmp_path: Path) -> None:
    trainer(tmp_path, recipe(max_steps=3, logging={"tensorboard": False, "profile_steps": (2,)})).fit()
    names = sorted(path.name for path in (tmp_path / "profiles").iterdir())
    assert names == ["step-00000002.pt.trace.json", "step-00000002.txt"]
    events = json.loads((tmp_path / "profiles" / names[0]).read_text())["traceEvents"]
    assert any(event["name"] == "aten::linear" for event in events)
    assert "Self CPU time total" in (tmp_path / "profiles" / names[1]).read_text()


class FakeWandb(ModuleType):
    """Keeps what a run logs, as wandb does offline."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, object]] = []
        self.logged: list[dict[str, object]] = []
        self.finished = 0
        self.refuses = False

    def init(self, **options: object) -> SimpleNamespace:
        if self.refuses:
            raise self.Error("no API key")
        self.started.append(options)
        return SimpleNamespace(define_metric=lambda *names, **options: None, log=self.logged.append, finish=self.finish)

    def finish(self) -> None:
        self.finished += 1


def test_metrics_go_to_weights_and_biases_by_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trainer(tmp_path, recipe(max_steps=2)).fit()
    assert wandb.started == []
    config = recipe(max_steps=4, logging={"tensorboard": False, "wandb_project": "clips"})
    trainer(tmp_path, config).fit()
    (started,) = wandb.started
    assert (started["project"], started["id"], started["resume"]) == ("clips", tmp_path.name, "allow")
    assert [record["step"] for record in wandb.logged] == [3, 4]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert wandb.logged[-1]["train/loss"] == lines[-1]["loss"]
    assert wandb.finished == 1
    wandb.refuses = True
    with pytest.raises(
        OsoraError, match=r"logging.wandb_project = 'clips': no API key. Log in, set WANDB_MODE=offline"
    ):
        trainer(tmp_path, config).fit()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(OsoraError, match=r"pip install 'osora\[wandb\]'"):
        trainer(tmp_path, config).fit()
