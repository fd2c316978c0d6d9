import csv
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opensora_cli.data.position import History
from opensora_cli.distributed.process import Process
from opensora_cli.training.draws import Draws
from opensora_cli.training.objective import Loss
from schemas.errors import OsoraError
from tests.unit.training_fakes import FakeBatch, FakeLoader, FakeObjective, recipe, trainer


def losses(path: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert len({line["step"] for line in lines}) == len(lines), "a step was recorded twice"
    return {line["step"]: line["loss"] for line in lines}


def test_a_run_ends_with_its_data_and_saves_the_last_update(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe())
    assert run.fit() == 0
    assert run.progress.update == 20
    assert [p.name for p in run.checkpoints.complete()] == ["step-00000018", "step-00000020"]


def test_max_steps_ends_a_run_before_its_data(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe(max_steps=7))
    run.fit()
    assert sorted(losses(tmp_path)) == list(range(1, 8))


def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reference = trainer(whole, recipe())
    reference.fit()

    class PowerCutError(Exception):
        """Stands for the plug being pulled: nothing of the trainer's own clean-up may be needed."""

    cut = trainer(broken, recipe())
    cut_at = 11
    done = cut._update

    def update(*args: object) -> None:
        done(*args)  # type: ignore[arg-type]
        if cut.progress.update == cut_at:
            raise PowerCutError

    cut._update = update  # type: ignore[method-assign]
    with pytest.raises(PowerCutError):
        cut.fit()

    resumed = trainer(broken, recipe())
    resumed.fit()
    assert losses(broken) == losses(whole)
    for name, tensor in reference.state.tensors().items():
        assert torch.equal(tensor, resumed.state.tensors()[name]), name


class OneOfSeveral(Process):
    """A process whose neighbours are not there, and agree with it."""

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def totals(self, counts: Sequence[int]) -> list[int]:
        return list(counts)

    def from_main(self, text: str | None) -> str | None:
        return text


def test_a_run_on_other_ranks_goes_on_behind_what_the_earlier_ones_did(tmp_path: Path) -> None:
    class Asked(FakeLoader):
        def __init__(self) -> None:
            super().__init__()
            self.starts: list[tuple[int, int, History]] = []

        def epoch(self, epoch: int, start: int = 0, before: History = ()) -> Iterator[FakeBatch]:
            self.starts.append((epoch, start, before))
            return super().epoch(epoch, start)

    def starts(process: Process, until: int) -> list[tuple[int, int, History]]:
        loader = Asked()
        run = trainer(tmp_path, recipe(max_steps=until), loader=loader)
        run.process = process
        run.fit()
        return loader.starts

    cpu = torch.device("cpu")
    assert starts(OneOfSeveral(0, 2, cpu), 3) == [(0, 0, ())]
    assert starts(OneOfSeveral(1, 2, cpu), 4) == [(0, 3, ())]
    assert starts(OneOfSeveral(0, 8, cpu, together=2), 6) == [(0, 0, ((2, 4),))]
    notes = (tmp_path / "logs" / "rank-0.log").read_text()
    assert "epoch 0 goes on with 4 data-parallel ranks: they share what is left of it, 8 batches are done" in notes
    assert notes.count("goes on with") == 1
    assert starts(OneOfSeveral(0, 1, cpu), 14) == [(0, 0, ((2, 4), (4, 2))), (1, 0, ())]


def test_accumulation_counts_updates_and_averages_gradients(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe(optim={"accumulation_steps": 3}))
    run.fit()
    assert run.progress.update == 20 // 3

    objective = FakeObjective()
    run = trainer(tmp_path / "one", recipe(optim={"accumulation_steps": 2, "grad_clip": 0.0}, max_steps=1), objective)
    weight = objective.module.weight.detach().clone()
    batches = list(FakeLoader().epoch(0))[:2]
    twin = FakeObjective()
    total = torch.stack(
        [next(twin.losses(b, Draws(run.recipe.seed, 0, i, 0))).value for i, b in enumerate(batches)]
    ).mean()
    run.fit()
    assert losses(tmp_path / "one")[1] == pytest.approx(total.item(), rel=1e-6)
    assert not torch.equal(objective.module.weight, weight)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    objective = FakeObjective(5)
    run = trainer(tmp_path, recipe(), objective)
    with pytest.raises(OsoraError, match=r"update 5: loss = nan.*step-00000003"):
        run.fit()
    assert torch.isfinite(objective.module.weight).all()
    assert max(losses(tmp_path)) == 4


class FaultyRows(FakeObjective):
    """The loss of batches with certain rows is not finite, in whichever run and order they come."""

    def __init__(self, *first_rows: int) -> None:
        super().__init__()
        self.first_rows = first_rows

    def losses(self, batch: FakeBatch, draws: Draws) -> Iterator[Loss]:
        for loss in super().losses(batch, draws):
            broken = batch.rows[0] in self.first_rows
            yield Loss(loss.value * float("inf")) if broken else loss


def test_updates_that_are_not_finite_are_left_out_and_kept(tmp_path: Path) -> None:
    config = recipe(optim={"lr": 0.05, "max_skips": 4, "max_skips_in_a_row": 1})
    run = trainer(tmp_path / "whole", config, FaultyRows(8))
    assert run.fit() == 0
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "skipped" in line] == [3, 8, 13, 18]
    assert lines[2]["loss"] is None
    assert run.progress.skipped == 4
    kept = tmp_path / "whole" / "faulty" / "step-00000003"
    facts = json.loads((kept / "rank-0.json").read_text())
    assert facts["values"]["loss"] == "inf"
    (micro_batch,) = facts["micro_batches"]
    assert micro_batch["rows"] == [8, 9, 10, 11]
    (batch,) = list(FakeLoader().epoch(0))[2:3]
    assert torch.equal(load_file(kept / "rank-0.safetensors")["0.video"], batch.video)
    Draws(**micro_batch["draws"])

    cut = trainer(tmp_path / "cut", config.model_copy(update={"max_steps": 9}), FaultyRows(8))
    cut.fit()
    resumed = trainer(tmp_path / "cut", config, FaultyRows(8))
    resumed.fit()
    assert resumed.progress == run.progress
    assert all(torch.equal(tensor, resumed.state.tensors()[name]) for name, tensor in run.state.tensors().items())
    assert all(tensor.isfinite().all() for tensor in run.state.tensors().values())


@pytest.mark.parametrize(
    ("optim", "faulty", "message"),
    [
        ({"max_skips": 1}, (8,), "update 8: .*1 were left out before, the last 0 in a row"),
        (
            {"max_skips": 9, "max_skips_in_a_row": 2},
            (4, 8, 12),
            "update 4: .*2 were left out before, the last 2 in a row",
        ),
    ],
)
def test_only_so_many_updates_are_left_out(
    tmp_path: Path, optim: dict[str, int], faulty: tuple[int, ...], message: str
) -> None:
    run = trainer(tmp_path, recipe(optim=optim), FaultyRows(*faulty))
    with pytest.raises(OsoraError, match=message):
        run.fit()


def test_a_process_leaves_out_what_is_not_finite_elsewhere(tmp_path: Path) -> None:
    class NeighbourIsFaulty(OneOfSeveral):
        def mean(self, values: torch.Tensor) -> torch.Tensor:
            return values * float("nan") if run.progress.update == 2 else values

        def totals(self, counts: Sequence[int]) -> list[int]:
            return [1] if run.progress.update == 2 and len(counts) == 1 else list(counts)

    run = trainer(tmp_path, recipe(max_steps=4, optim={"max_skips": 1}))
    run.process = NeighbourIsFaulty(0, 2, torch.device("cpu"))
    assert run.fit() == 0
    assert run.progress.skipped == 1
    assert not (tmp_path / "faulty").exists(), "its own batch is fine"


def test_the_first_signal_finishes_the_update_saves_and_gives_the_shells_code(tmp_path: Path) -> None:
    class Killed(FakeObjective):
        def losses(self, *args):  # type: ignore[no-untyped-def]
            if self.calls == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().losses(*args)

    run = trainer(tmp_path, recipe(), Killed())
    assert run.fit() == 143
    assert run.progress.update == 7
    assert run.checkpoints.latest() == tmp_path / "checkpoints" / "step-00000007"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_bad_clips_are_listed_and_too_many_stop_the_run(tmp_path: Path) -> None:
    bad = {1: [(100 + i, f"clips/{i}.mp4", "no video\nstream") for i in range(2)]}
    config = recipe(dataset={"max_bad_share": 0.1})
    run = trainer(tmp_path, config, loader=FakeLoader(bad))
    with pytest.raises(OsoraError, match=r"6 of 54 clips could not be read, more than dataset.max_bad_share = 0.1"):
        run.fit()
    with (tmp_path / "bad_samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[0] == {"update": "2", "row": "100", "path": "clips/0.mp4", "reason": "no video stream"}


def test_every_metric_is_recorded(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe(max_steps=2, logging={"tensorboard": True}, memory={"compile": True}))
    run.fit()
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    wanted = {
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "step_seconds",
        "samples_per_second",
        "memory_gib",
        "double",
        "compile_seconds",
    }
    assert wanted <= set(record)
    assert record["double"] == pytest.approx(2 * record["loss"])
    assert list((tmp_path / "tensorboard").iterdir())
    assert "loss" in (tmp_path / "logs" / "rank-0.log").read_text()
