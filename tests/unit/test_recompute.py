"""Recomputing in its forms: every one gives the gradients of the plain backward pass, to the last bit."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from opensora_models.layers import host_buffer
from opensora_models.layers.host_buffer import Chunk, HostBuffer
from opensora_models.layers.recompute import Recompute
from opensora_models.mmdit.model import MMDiT
from schemas.denoiser import MMDiTConfig
from schemas.memory import MemoryConfig

CONFIG = MMDiTConfig(
    in_channels=8,
    vec_in_dim=12,
    context_in_dim=16,
    hidden_size=32,
    num_heads=2,
    axes_dim=(4, 6, 6),
    depth=3,
    depth_single_blocks=3,
    guidance_embed=False,
    cond_embed=False,
)
STREAM = 2 * 24 * 32 * 4
"""Bytes of the joined tokens' residual stream: two clips of 20 + 4 tokens."""


def model() -> MMDiT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MMDiT(CONFIG)


def forward(denoiser: MMDiT) -> Tensor:
    drawn = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=drawn)

    ids = torch.zeros(2, 20, 3), torch.zeros(2, 4, 3)
    return denoiser(normal(2, 20, 8), ids[0], normal(2, 4, 16), ids[1], torch.ones(2), normal(2, 12)).square().mean()


def gradients(denoiser: MMDiT, dtype: torch.dtype = torch.float32) -> dict[str, Tensor | None]:
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = forward(denoiser)
    loss.backward()
    return {"loss": loss.detach()} | {name: weight.grad for name, weight in denoiser.named_parameters()}


class Products(TorchDispatchMode):
    """Counts matrix products and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += name in ("mm", "addmm", "bmm") or (name.startswith("_scaled_dot") and "backward" not in name)
        return func(*args, **(kwargs or {}))


def products(denoiser: MMDiT) -> tuple[int, int]:
    """Return the products of the forward and of the backward pass."""
    with Products() as counted:
        loss = forward(denoiser)
        there = counted.count
        torch.autograd.backward(loss)
    return there, counted.count - there


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", ["nothing", "products"])
@pytest.mark.parametrize("size", [0, 1 << 20])
def test_no_form_changes_a_gradient(keep: Any, size: int, dtype: torch.dtype) -> None:
    recomputing = model()
    recomputing.set_grad_checkpointing(2, 3, 1, Recompute(keep, HostBuffer(size) if size else None))
    torch.testing.assert_close(gradients(recomputing, dtype), gradients(model(), dtype), atol=0, rtol=0)


def test_kept_products_are_not_computed_twice() -> None:
    plain, everything, cheap = model(), model(), model()
    everything.set_grad_checkpointing(3, 3)
    cheap.set_grad_checkpointing(3, 3, 1, Recompute("products"))
    there, back = products(plain)
    assert products(cheap) == (there, back)
    assert products(everything)[1] > back + 0.7 * there  # the second pass ends with the last tensor that is wanted


def test_every_second_block_is_recomputed() -> None:
    denoiser = model()
    denoiser.set_grad_checkpointing(3, 2, 2)
    runs: list[str] = []
    for name in [f"{kind}_blocks.{i}" for kind in ("double", "single") for i in range(3)]:
        denoiser.get_submodule(name).register_forward_pre_hook(lambda _module, _inputs, name=name: runs.append(name))
    gradients(denoiser)
    twice = {name for name in runs if runs.count(name) == 2}
    assert twice == {"double_blocks.0", "double_blocks.2", "single_blocks.0"}


def test_the_recipe_says_how() -> None:
    how = Recompute.of(MemoryConfig(grad_ckpt_keep="products", grad_ckpt_buffer_size=4096))
    assert (how.keep, how.buffer is not None and how.buffer.capacity) == ("products", 4096)
    assert Recompute.of(MemoryConfig()).buffer is None


@pytest.mark.parametrize("room", [1000, STREAM, 3 * STREAM, 100 * STREAM])
def test_the_buffer_stays_within_its_bound_and_is_empty_afterwards(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_buffer, "CHUNK", 1 << 14)
    buffer, denoiser = HostBuffer(room), model()
    denoiser.set_grad_checkpointing(3, 3, 1, Recompute(buffer=buffer))
    for _ in range(2):
        loss = forward(denoiser)
        assert buffer.allocated <= room
        assert bool(buffer.waiting) == (room >= STREAM)  # the text alone has 1024 bytes
        if room == 100 * STREAM:
            assert len(buffer.waiting) == 3 * 2 + 3  # two streams of a double block, one of a single block
        loss.backward()
        assert buffer.waiting == []


def test_places_are_stacked_and_free_again_from_the_top() -> None:
    chunk = Chunk(1000, pinned=False)
    first, second = chunk.take(100), chunk.take(100)
    assert first is not None
    assert second is not None
    assert second.memory.data_ptr() - first.memory.data_ptr() == 128
    assert chunk.take(800) is None
    del first  # below another: nothing to gain yet
    third = chunk.take(100)
    assert third is not None
    del second, third
    assert chunk.take(1000) is not None


def test_a_graph_that_is_used_twice_finds_its_tensors_again() -> None:
    denoiser, buffer = model(), HostBuffer(1 << 20)
    denoiser.set_grad_checkpointing(3, 3, 1, Recompute(buffer=buffer))
    loss, weight = forward(denoiser), denoiser.img_in.weight
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(loss, weight)
    assert torch.equal(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies beside the computation need a GPU")
@pytest.mark.parametrize("size", [1 << 14, 1 << 24])
def test_on_a_gpu_the_buffer_changes_no_gradient(size: int) -> None:
    def run(buffer: HostBuffer | None) -> dict[str, Tensor | None]:
        denoiser = model().cuda()
        denoiser.set_grad_checkpointing(3, 3, 1, Recompute(buffer=buffer))
        x, ids = torch.ones(2, 2000, 8, device="cuda"), torch.zeros(2, 2000, 3, device="cuda")
        text = torch.ones(2, 4, 16, device="cuda"), torch.zeros(2, 4, 3, device="cuda")
        once = torch.ones(2, device="cuda"), torch.ones(2, 12, device="cuda")
        denoiser(x, ids, *text, *once).square().mean().backward()
        return {name: weight.grad for name, weight in denoiser.named_parameters()}

    torch.testing.assert_close(run(HostBuffer(size)), run(None), atol=0, rtol=0)
