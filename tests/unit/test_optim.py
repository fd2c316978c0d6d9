import pytest
import torch
from torch import nn

from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import Optimizer, learning_rate
from schemas.optim import OptimConfig


def test_warm_up_rises_in_a_line_and_stays() -> None:
    rates = [learning_rate(i, lr=1e-3, warmup_steps=4, initial_lr=0.0) for i in range(6)]
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])


def test_cosine_ends_at_zero_and_never_rises_again() -> None:
    rates = [learning_rate(i, lr=1.0, warmup_steps=2, schedule="cosine", max_steps=10) for i in range(14)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:11] == sorted(rates[2:11], reverse=True)
    assert max(abs(r) for r in rates[10:]) < 1e-15


def test_clipping_reports_the_norm_before_it_and_zero_does_not_clip() -> None:
    for clip, expected in ((1.0, 1.0), (0.0, 5.0)):
        module = nn.Linear(2, 1, bias=False)
        module.weight.grad = torch.tensor([[3.0, 4.0]])
        norm = Optimizer(module, OptimConfig(grad_clip=clip), None).clip()
        assert float(norm) == pytest.approx(5.0)
        assert float(module.weight.grad.norm()) == pytest.approx(expected, rel=1e-5)


def test_the_optimizers_tensors_are_there_before_the_first_step() -> None:
    optimizer = Optimizer(nn.Linear(2, 1), OptimConfig(), None)
    assert set(optimizer.state_dict()) == {
        f"{m}.{p}" for m in ("step", "exp_avg", "exp_avg_sq") for p in ("weight", "bias")
    }


def test_the_average_is_fp32_also_of_bf16_weights_and_skips_what_is_not_trained() -> None:
    module = nn.Linear(4, 4).to(torch.bfloat16)
    module.bias.requires_grad_(False)
    ema = Ema(module, 0.75)
    before = {name: t.clone() for name, t in ema.state_dict().items()}
    with torch.no_grad():
        module.weight.add_(1.0)
        module.bias.add_(1.0)
    ema.update(module)
    after = ema.state_dict()
    assert after["weight"].dtype == torch.float32
    torch.testing.assert_close(after["weight"], 0.75 * before["weight"] + 0.25 * module.weight.float())
    assert torch.equal(after["bias"], before["bias"])
    assert set(Ema(module, 0.75, trained_only=True).state_dict()) == {"weight"}


def test_draws_depend_on_every_part_of_their_key_and_on_nothing_else() -> None:
    def draw(*key: int, purpose: str = "noise") -> float:
        return float(torch.rand(1, generator=Draws(*key).generator(purpose)))  # type: ignore[call-arg]

    keys = [(0, 1, 2, 3), (1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4)]
    assert len({draw(*key) for key in keys} | {draw(*keys[0], purpose="times")}) == 6
    torch.manual_seed(123)
    assert draw(*keys[0]) == draw(*keys[0])
    assert keyed_generator("a", 11).initial_seed() != keyed_generator("a1", 1).initial_seed()


def test_building_with_a_seed_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with seeded_init(1):
        first = nn.Linear(3, 3).weight
    assert torch.equal(torch.rand(3), expected)
    with seeded_init(1):
        assert torch.equal(nn.Linear(3, 3).weight, first)


def test_a_line_ends_at_zero_and_warms_up_from_the_initial_rate() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=1, initial_lr=0.5, schedule="linear")
    module = nn.Linear(2, 1)
    optimizer = Optimizer(module, config, 5)
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    assert [optimizer.step(i) for i in range(8)] == pytest.approx([0.75, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0])


def test_schedules_that_fall_need_an_end() -> None:
    for schedule in ("linear", "cosine"):
        with pytest.raises(ValueError, match=f"a {schedule} schedule needs max_steps"):
            learning_rate(3, lr=1.0, warmup_steps=0, schedule=schedule)  # type: ignore[arg-type]
