"""Looking at a model in training leaves it as it was."""

from pathlib import Path

import pytest
import torch

from opensora_cli.distributed.layout import Layout
from opensora_cli.training.looks import at_rest, shared_out
from tests.unit.training_fakes import recipe, trainer


def test_averaged_weights_are_there_while_one_looks_and_gone_afterwards(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe(max_steps=4))
    run.fit()
    before = {name: tensor.clone() for name, tensor in run.state.tensors().items()}
    assert not torch.equal(before["model.weight"], before["ema.weight"])
    with pytest.raises(KeyError), at_rest(run.state, Layout(), ema=True):
        assert torch.equal(run.state.module.weight, before["ema.weight"])
        assert not run.state.module.training
        assert not torch.is_grad_enabled()
        raise KeyError
    assert run.state.module.training
    after = run.state.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with at_rest(run.state, Layout(), ema=False):
        assert torch.equal(run.state.module.weight, before["model.weight"])


@pytest.mark.parametrize(("count", "size"), [(1, 1), (5, 2), (1, 4), (8, 4), (9, 4)])
def test_every_rank_has_equally_many_and_each_number_is_one_ranks_own(count: int, size: int) -> None:
    shares = [shared_out(count, rank, size) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    own = [[number for number in share if number % size == rank] for rank, share in enumerate(shares)]
    assert sorted(number for share in own for number in share) == list(range(count))
    for number in range(count):
        assert shares[number % size][number // size] == number
