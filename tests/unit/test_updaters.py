"""The forms of AdamW: in host memory, released in the backward pass, in 8 bits. Each against the plain one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from opensora_cli.training import host_adamw
from opensora_cli.training.adamw8bit import BLOCK, SIGNED, UNSIGNED, AdamW8bit, Code, dequantise, quantise
from opensora_cli.training.draws import keyed_generator, seeded_init
from opensora_cli.training.optim import Optimizer
from schemas.errors import OsoraError
from schemas.memory import MemoryConfig
from schemas.optim import OptimConfig
from schemas.recipes import VaeTrainRecipe
from tests.unit.training_fakes import FakeObjective, recipe, trainer

FREE = OptimConfig(lr=1e-2, weight_decay=0.1, grad_clip=0.0, warmup_steps=3)
HOST, RELEASED = MemoryConfig(offload_optimizer=True), MemoryConfig(release_gradients=True)


def network() -> nn.Module:
    with seeded_init(0):
        return nn.Sequential(nn.Linear(48, 96), nn.Tanh(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 8))


def losses(config: OptimConfig, memory: MemoryConfig, updates: int = 12) -> tuple[list[float], nn.Module, Optimizer]:
    """Fit another network's outputs, as the trainer does it."""
    module = network()
    optimizer = Optimizer(module, config, None, memory=memory)
    found = list(run(module, optimizer, range(updates)))
    return found, module, optimizer


def run(module: nn.Module, optimizer: Optimizer, updates: range) -> Iterator[float]:
    for update in updates:
        x = torch.randn(64, 48, generator=keyed_generator("x", update))
        loss = (module(x) - x[:, :8].abs() - x[:, 8:16]).square().mean()
        optimizer.begin(update)
        torch.autograd.backward(loss)
        assert optimizer.has_gradients()
        norm = optimizer.clip()
        assert norm > 0
        optimizer.step(update)
        assert not optimizer.has_gradients()
        yield loss.item()


@pytest.mark.parametrize("group", [1, 5000, 2**26])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_the_host_updates_as_the_device_does(group: int, clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_adamw, "GROUP", group)
    config = FREE.model_copy(update={"grad_clip": clip})
    plain, host = losses(config, MemoryConfig()), losses(config, HOST)
    assert host[0] == plain[0]
    torch.testing.assert_close(host[1].state_dict(), plain[1].state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(host[2].state_dict(), plain[2].state_dict(), atol=0, rtol=0)


def test_the_host_notices_weights_that_something_else_has_changed() -> None:
    _, module, optimizer = losses(FREE, HOST, 3)
    _, twin, plain = losses(FREE, MemoryConfig(), 3)
    for changed in (module, twin):
        with torch.no_grad():
            changed[0].weight.mul_(0.5)
    assert list(run(module, optimizer, range(3, 6))) == list(run(twin, plain, range(3, 6)))


def test_a_weight_without_a_gradient_is_left_alone_on_the_host() -> None:
    module = network()
    optimizer = Optimizer(module, FREE, None, memory=HOST)
    before = [p.detach().clone() for p in module.parameters()]
    module[0].weight.grad = torch.ones_like(module[0].weight)
    optimizer.step(0)
    changed = [not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True)]
    assert changed == [True, False, False, False, False, False]


@pytest.mark.parametrize("cls", ["AdamW", "AdamW8bit"])
def test_released_gradients_give_the_same_weights(cls: str) -> None:
    config = FREE.model_copy(update={"cls": cls})
    plain, released = losses(config, MemoryConfig()), losses(config, RELEASED)
    assert released[0] == plain[0]
    torch.testing.assert_close(released[1].state_dict(), plain[1].state_dict(), atol=0, rtol=0)
    assert released[2].state_dict().keys() == plain[2].state_dict().keys()


def test_released_gradients_never_wait() -> None:
    module = network()
    optimizer = Optimizer(module, FREE, None, memory=RELEASED)
    waiting: list[int] = []

    def count(_gradient: Tensor) -> None:
        waiting.append(sum(p.grad is not None for p in module.parameters()))

    for p in module.parameters():
        p.register_hook(count)
    optimizer.begin(0)
    module(torch.ones(2, 48)).square().sum().backward()
    assert waiting == [0] * 6
    plain = network()
    plain(torch.ones(2, 48)).square().sum().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    torch.testing.assert_close(optimizer.clip(), norm)


def test_several_processes_do_not_release() -> None:
    class Shared:
        alone = False

    with pytest.raises(OsoraError, match="average their gradients after the backward pass"):
        Optimizer(network(), FREE, None, Shared(), RELEASED)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_releases_nothing(tmp_path: Path) -> None:
    objective = FakeObjective(3)
    run = trainer(tmp_path, recipe(optim={"grad_clip": 0.0}, memory={"release_gradients": True}), objective)
    with pytest.raises(OsoraError, match="the weights were left alone"):
        run.fit()
    assert torch.isfinite(objective.module.weight).all()


def test_a_gradient_that_is_not_finite_is_too_late_to_leave_out(tmp_path: Path) -> None:
    objective = FakeObjective()
    config = recipe(optim={"grad_clip": 0.0, "max_skips": 5}, memory={"release_gradients": True}, max_steps=3)
    run = trainer(tmp_path, config, objective)
    objective.module.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(OsoraError, match="release_gradients had applied its gradients"):
        run.fit()


@pytest.mark.parametrize("code", [SIGNED, UNSIGNED])
def test_codes_are_near_and_right_on_average(code: Code) -> None:
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(4, 600, generator=drawn)  # two blocks of 256 and one of 88
    x = x.abs() if code is UNSIGNED else x
    x[3] = 0
    rounded = [quantise(x, code, torch.rand(x.shape, generator=drawn)) for _ in range(400)]
    codes, scale = rounded[0]
    assert codes.dtype == code.dtype
    assert scale.shape == (4, 3)
    torch.testing.assert_close(scale[0, 2], x[0, 2 * BLOCK :].abs().max())
    found = torch.stack([dequantise(*one, code) for one in rounded])
    spread = (found[0] - x).abs() / scale.repeat_interleave(BLOCK, 1)[:, :600].clamp(min=1e-30)
    assert spread.max() < (2 if code is SIGNED else 4) / code.steps
    assert torch.equal(found[:, 3], torch.zeros(400, 600))
    assert (found.mean(0) - x).abs().max() < 4 * found.std(0).max() / 20


def test_eight_bits_learn_nearly_as_well_and_take_a_quarter() -> None:
    eight = FREE.model_copy(update={"cls": "AdamW8bit", "lr": 3e-3})
    plain, _, whole = losses(eight.model_copy(update={"cls": "AdamW"}), MemoryConfig(), 150)
    found, _, optimizer = losses(eight, MemoryConfig(), 150)
    assert sum(found[-20:]) < 1.03 * sum(plain[-20:]) < 0.9 * 20 * plain[0]

    def size(state: dict[str, Tensor]) -> int:
        return sum(tensor.nbytes for name, tensor in state.items() if name.endswith("2.weight"))

    assert size(optimizer.state_dict()) < 0.27 * size(whole.state_dict())


def test_small_tensors_keep_exact_moments() -> None:
    updater = AdamW8bit(dict(network().named_parameters()), FREE)
    assert set(updater.params) == {"0.weight", "2.weight"}


def eight_bit_recipe(**tables: object) -> VaeTrainRecipe:
    return recipe(optim={"lr": 0.05, "cls": "AdamW8bit"}, **tables)


class WideObjective(FakeObjective):
    """A map with enough numbers for 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        with seeded_init(0):
            self.module = nn.Sequential(nn.Linear(3, 2048), nn.Linear(2048, 1))


@pytest.mark.parametrize("memory", [{}, {"offload_optimizer": True}])
def test_a_resumed_run_repeats_the_uninterrupted_one(memory: dict[str, bool], tmp_path: Path) -> None:
    def made(folder: str, **tables: object):  # type: ignore[no-untyped-def]
        make = recipe if memory else eight_bit_recipe
        return trainer(tmp_path / folder, make(memory=memory, **tables), WideObjective())

    whole = made("whole")
    whole.fit()
    made("parts", max_steps=7).fit()
    resumed = made("parts")
    resumed.fit()
    state = whole.state.tensors()
    assert any(name.startswith("optim.exp_avg_scale") for name in state) == (not memory)
    torch.testing.assert_close(resumed.state.tensors(), state, atol=0, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("memory", [HOST, RELEASED])
def test_on_a_gpu_the_forms_agree(memory: MemoryConfig) -> None:
    def weights(memory: MemoryConfig) -> list[Tensor]:
        module = network().cuda()
        optimizer = Optimizer(module, FREE, None, memory=memory)
        for update in range(5):
            x = torch.randn(64, 48, generator=keyed_generator("x", update)).cuda()
            optimizer.begin(update)
            module(x).square().mean().backward()
            optimizer.clip()
            optimizer.step(update)
        return list(module.parameters())

    torch.testing.assert_close(weights(memory), weights(MemoryConfig()), atol=1e-6, rtol=1e-5)
