"""Training with 8-bit products, emulated with the same rounding: errors of results and gradients, and what is converted."""

import pytest
import torch
from torch import Tensor, nn

from opensora_models.float8_training import E4M3, E5M2, TrainedFloat8Linear, multiply, quantise, train_in_float8
from opensora_models.mmdit.model import MMDiT
from schemas.denoiser import MMDiTConfig
from schemas.errors import OsoraError

CPU = torch.device("cpu")
CONFIG = MMDiTConfig(
    in_channels=8,
    vec_in_dim=12,
    context_in_dim=16,
    hidden_size=32,
    num_heads=2,
    axes_dim=(4, 6, 6),
    depth=2,
    depth_single_blocks=2,
    guidance_embed=False,
    cond_embed=False,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("dtype", "bound"), [(E4M3, 2**-4), (E5M2, 2**-3)])
def test_numbers_keep_the_bits_of_their_format(dtype: torch.dtype, bound: float) -> None:
    x = drawn(64, 64) * 1e-6  # far below the formats' own range: the scale brings them there
    found, scale = quantise(x, dtype)
    large = x.abs() > 1e-2 * x.abs().max()
    assert ((found.float() * scale - x).abs() / x.abs())[large].max() <= bound
    zeros, _ = quantise(torch.zeros(4, 4), dtype)
    assert torch.equal(zeros.float(), torch.zeros(4, 4))


@pytest.mark.parametrize("rows", [32, 21])
def test_results_and_gradients_are_within_the_formats_error(rows: int) -> None:
    plain = nn.Linear(64, 48)
    layer = TrainedFloat8Linear.of(plain, emulate=True)
    assert layer.weight is plain.weight
    results = []
    for module in (plain, layer):
        x = drawn(2, rows, 64).requires_grad_()
        plain.zero_grad(set_to_none=True)
        y = module(x)
        (y * drawn(2, rows, 48, seed=1)).sum().backward()
        assert plain.weight.grad is not None
        assert plain.bias.grad is not None
        assert x.grad is not None
        results.append((y.detach(), x.grad, plain.weight.grad, plain.bias.grad))
    errors = [error(found, wanted) for wanted, found in zip(*results, strict=True)]
    assert 0.01 < errors[0] < 0.05
    assert 0.02 < errors[1] < 0.07
    assert 0.02 < errors[2] < 0.07
    assert errors[3] < 1e-6


def test_results_have_autocasts_dtype() -> None:
    layer = TrainedFloat8Linear.of(nn.Linear(32, 32), emulate=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(drawn(4, 32))
    y.float().sum().backward()
    assert (y.dtype, layer.weight.grad.dtype) == (torch.bfloat16, torch.float32)  # type: ignore[union-attr]


def forward(model: MMDiT) -> Tensor:
    ids = torch.zeros(2, 20, 3), torch.zeros(2, 4, 3)
    x = drawn(2, 20, 8)
    return (model(x, ids[0], drawn(2, 4, 16), ids[1], torch.ones(2), drawn(2, 12)) - x).square().mean()


def made() -> MMDiT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MMDiT(CONFIG)


def test_a_denoisers_blocks_are_converted_and_its_keys_stay() -> None:
    model, plain = made(), made()
    assert (
        train_in_float8(model, CPU, emulate=True) == 2 * 2 * 4 + 2 * 2
    )  # qkv, proj and two of the MLP a stream; two a single block
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [p for p in model.parameters() if p.is_meta] == []
    for one in (model, plain):
        forward(one).backward()
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    errors = [error(p.grad, q.grad) for p, q in pairs if p.grad is not None and q.grad is not None and q.grad.norm()]
    assert len(errors) > 40
    assert 0.001 < max(errors) < 0.3


def test_training_in_8_bits_comes_as_far() -> None:
    ends = []
    for emulate in (False, True):
        model = made()
        if emulate:
            train_in_float8(model, CPU, emulate=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(30):
            loss = forward(model)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(loss.item())
    assert ends[1] < 1.1 * ends[0] < 0.3


def test_a_cpu_is_refused() -> None:
    with pytest.raises(OsoraError, match="a CPU has no 8-bit products"):
        train_in_float8(made(), CPU)


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9),
    reason="needs a GPU with 8-bit products",
)
def test_a_gpu_gives_what_is_emulated() -> None:
    x, y = drawn(64, 128).cuda(), drawn(48, 128, seed=1).cuda()
    (a, a_scale), (b, b_scale) = quantise(x, E4M3), quantise(y, E4M3)
    real, like = (multiply(a, a_scale, b.t(), b_scale, torch.bfloat16, emulate) for emulate in (False, True))
    torch.testing.assert_close(real, like, atol=2e-2, rtol=2e-2)
    model = made().cuda()
    assert train_in_float8(model, torch.device("cuda"))
