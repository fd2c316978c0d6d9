"""A micro-batch that does not fit is done in halves, and gives what it would have given whole."""

from typing import Any

import pytest
import torch
from torch import Tensor

from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.data.loader import Batch
from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import Process
from opensora_cli.training.backward import Backward
from opensora_cli.training.token_objective import TokenObjective
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve

CPU = torch.device("cpu")
CLIPS = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainRecipe:
    folder = tmp_path_factory.mktemp("text")
    make_tiny_text_encoders(folder, ["a", "circle", "moves"], seed=0)
    sets = [
        f'text.t5.from_pretrained="{folder}/t5"', f'text.clip.from_pretrained="{folder}/clip"', "model.depth=1",
        "model.depth_single_blocks=1", "memory.split_on_oom=true",
    ]  # fmt: skip
    recipe = resolve("tiny/train", sets=sets, unsets=["ae.from_pretrained"]).recipe
    assert isinstance(recipe, TrainRecipe)
    return recipe


def batch(number: int) -> Batch:
    video = torch.rand(CLIPS, 3, 5, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1
    rows = [CLIPS * number + clip for clip in range(CLIPS)]
    return Batch(video, ["a circle moves"] * CLIPS, rows, f"bucket {number}", [8.0] * CLIPS, [])  # type: ignore[arg-type]


class Run:
    """Two micro-batches of one update."""

    def __init__(self, config: TrainRecipe) -> None:
        self.objective = TokenObjective(config, CPU)
        torch.nn.init.normal_(
            self.objective.module.cond_in.weight, std=0.02, generator=torch.Generator().manual_seed(0)
        )
        self.notes: list[str] = []
        self.backward = Backward(config, self.objective, Process(0, 1, CPU), Layout(), self.notes.append)
        self.batches = [batch(0), batch(1)]

    def update(self, number: int = 0) -> tuple[float, dict[str, Tensor]]:
        self.objective.module.zero_grad(set_to_none=True)
        means = self.backward.run(number, self.batches)
        assert set(means) == {"loss"}
        gradients = {name: p.grad.clone() for name, p in self.objective.module.named_parameters() if p.grad is not None}
        return float(means["loss"]), gradients


def too_many(limit: int, calls: list[int]) -> Any:
    """A forward hook whose backward pass finds no room for more than `limit` clips."""

    def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        calls.append(len(output))
        if len(output) > limit:

            def full(gradient: Tensor) -> None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

            output.register_hook(full)

    return hook


def same(left: tuple[float, dict[str, Tensor]], right: tuple[float, dict[str, Tensor]]) -> None:
    assert left[0] == pytest.approx(right[0], abs=1e-6)
    assert left[1].keys() == right[1].keys()
    for name, gradient in left[1].items():
        torch.testing.assert_close(gradient, right[1][name], rtol=1e-4, atol=1e-6)


def test_halves_give_the_loss_and_gradients_of_the_whole(config: TrainRecipe) -> None:
    whole, split = Run(config), Run(config)
    calls: list[int] = []
    split.objective.module.register_forward_hook(too_many(2, calls))
    same(split.update(), whole.update())
    assert calls == [5, 3, 2, 1, 1, 1, 5, 2, 1, 1, 1, 3, 2, 1, 1, 1, 2, 1, 1, 1]
    assert len(split.notes) == 4
    assert "update 1: memory ran out; bucket bucket 0 is done in 2 parts (CUDA out of memory." in split.notes[0]
    assert split.backward.parts(split.batches) == {"parts": 4.0}
    calls.clear()
    same(split.update(1), whole.update(1))
    assert calls == [2, 1, 1, 1] * 2, "what did not fit is not tried again"


def test_clips_that_cannot_be_encoded_together_are_encoded_in_halves(
    config: TrainRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, split = Run(config), Run(config)
    moments = split.objective.ae.moments

    def small(x_BCTHW: Tensor) -> Tensor:
        if len(x_BCTHW) > 2:
            raise torch.OutOfMemoryError("full")
        return moments(x_BCTHW)

    monkeypatch.setattr(split.objective.ae, "moments", small)
    same(split.update(), whole.update())


def test_memory_that_does_not_do_for_one_clip_stops_the_run(config: TrainRecipe) -> None:
    run = Run(config)
    run.objective.module.register_forward_hook(too_many(0, []))
    with pytest.raises(OsoraError, match="update 1: memory runs out with a single clip of bucket bucket 0"):
        run.update()
    plain = Run(config.model_copy(update={"memory": config.memory.model_copy(update={"split_on_oom": False})}))
    plain.objective.module.register_forward_hook(too_many(0, []))
    with pytest.raises(torch.OutOfMemoryError):
        plain.update()


def test_several_processes_do_not_split(config: TrainRecipe) -> None:
    objective = Run(config).objective
    with pytest.raises(OsoraError, match=r"memory\.split_on_oom = true on 2 processes"):
        Backward(config, objective, Process(0, 2, CPU), Layout(), print)
