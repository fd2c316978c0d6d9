"""The causal autoencoder in parts: the numbers of the whole clip, in less memory."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_cli.planning.traced import LiveStorages
from opensora_models.hunyuan_vae import streaming
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.hunyuan_vae.norm_statistics import Statistics, silu_of_affine
from schemas.autoencoder import HunyuanVAEConfig

SIZES = {"latent_channels": 4, "layers_per_block": 1, "block_out_channels": (4, 8, 8, 8), "norm_num_groups": 2}


def build(**changes: object) -> HunyuanVAE:
    torch.manual_seed(5)
    return HunyuanVAE(HunyuanVAEConfig.model_validate(SIZES | changes)).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("part_bytes", [1, 10**5])
@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, (1, 16, 24)), ({}, (17, 16, 8)), ({}, (6, 17, 9)), ({"time_compression_ratio": 8}, (17, 8, 16))],
)
def test_parts_give_the_numbers_of_the_whole(
    changes: dict[str, object], size: tuple[int, int, int], part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, x = build(**changes), noise(2, 3, *size)
    want = vae.encode(x).detach()
    pixels = vae.decode(want).detach()
    monkeypatch.setattr(streaming, "PART_BYTES", part_bytes)
    with torch.no_grad():
        torch.testing.assert_close(vae.encode(x), want, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(vae.decode(want), pixels, atol=1e-4, rtol=1e-3)


def test_parts_in_bf16_are_as_near_as_the_whole() -> None:
    vae, x = build(), noise(1, 3, 9, 16, 16)
    exact = vae.encode(x).detach()
    low = vae.bfloat16()
    whole = low.encode(x.bfloat16()).detach()
    with torch.no_grad():
        parts = low.encode(x.bfloat16())
    assert (parts - exact).abs().mean() < 1.5 * (whole - exact).abs().mean()


def peak(frames: int, *, gradients: bool = False, **changes: object) -> int:
    """Return the most bytes that decoding at 256 pixels has in memory, seen on tensors without numbers."""
    with torch.device("meta"), torch.set_grad_enabled(gradients):
        vae = build(block_out_channels=(64,) * 4, **changes)
        latents_BCTHW = torch.empty(1, 4, (frames - 1) // 4 + 1, 32, 32)
        with LiveStorages() as live:
            vae.decode(latents_BCTHW)
    return live.peak


def test_a_clip_is_twice_in_memory() -> None:
    features = 4 * 64 * 33 * 256 * 256
    # The widest features, two times, then the result and what is at work.
    assert 2 * features < peak(33) < 2.5 * features


def test_129_streamed_frames_take_the_memory_of_33() -> None:
    long = peak(129, stream_frames=4)
    assert long < peak(33)
    # What still grows is the result, 12 bytes a pixel, and what passes at the lowest resolution.
    assert long - peak(33, stream_frames=4) < 1.5 * 12 * 96 * 256 * 256


def test_streamed_parts_are_near_the_whole() -> None:
    x = noise(1, 3, 33, 32, 32)
    vae, streamed = build(), build(stream_frames=8)
    with torch.no_grad():
        z, near_z = vae.encode(x), streamed.encode(x)
        pixels, near = vae.decode(z), streamed.decode(z)
    for got, want in ((near_z, z), (near, pixels)):
        assert got.shape == want.shape
        error = (got - want).square().mean().sqrt() / want.square().mean().sqrt()
        assert 0 < error < 0.3  # noise through random weights; the statistics of 8 frames stand for those of 33


def test_a_clip_of_one_part_is_not_approximated() -> None:
    z = noise(1, 4, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(build(stream_frames=64).decode(z), build().decode(z), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_statistics_of_parts_are_those_of_the_whole(offset: float) -> None:
    x = noise(2, 6, 7, 4, 5) + offset
    norm = nn.GroupNorm(3, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    statistics = Statistics()
    for part in x.split([1, 4, 2], 2):
        statistics.add(part)
    out = torch.empty_like(x)
    with torch.no_grad():
        silu_of_affine(x, statistics.affine(norm), out)
        want = F.silu(norm.double()(x.double())).float()
    torch.testing.assert_close(out, want, atol=1e-5 if not offset else 1e-3, rtol=1e-4)
