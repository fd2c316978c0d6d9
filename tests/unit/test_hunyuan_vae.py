"""The causal video autoencoder: its interface, its causality and its tilings."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from opensora_models.hunyuan_vae.blocks import FrameCausalAttention
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.layers.posterior import DiagonalGaussian
from opensora_models.layers.tiling import HEIGHT, TIME, Tiling, mix, tile_space, tile_time
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from schemas.errors import OsoraError

SMALL = HunyuanVAEConfig(
    latent_channels=4,
    layers_per_block=1,
    block_out_channels=(4, 4, 8, 8),
    norm_num_groups=2,
    scale_factor=0.5,
    shift_factor=0.25,
    sample_size=32,
    sample_tsize=16,
)


def build(**changes: object) -> HunyuanVAE:
    torch.manual_seed(5)
    return HunyuanVAE(SMALL.model_copy(update=changes)).eval().requires_grad_(False)


def clip(frames: int, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(6)) * 2 - 1


@pytest.mark.parametrize("ratio", [4, 8])
@pytest.mark.parametrize("size", [(1, 16, 16), (9, 24, 16), (6, 17, 9), (17, 8, 8)])
def test_sizes_are_those_it_announces(ratio: int, size: tuple[int, int, int]) -> None:
    vae = build(time_compression_ratio=ratio)
    assert vae.strides == (ratio, 8, 8)
    z = vae.encode(clip(*size))
    assert z.shape == (1, vae.latent_channels, *vae.latent_size(*size))
    t, h, w = z.shape[2:]
    assert vae.decode(z).shape == (1, 3, ratio * (t - 1) + 1, 8 * h, 8 * w)


def test_encoding_draws_only_when_asked() -> None:
    vae, x = build(), clip(5)
    posterior = vae.posterior(x)
    torch.testing.assert_close(vae.encode(x), 0.5 * (posterior.mean - 0.25), atol=0, rtol=0)
    one, same, other = (vae.encode(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(one, 0.5 * (posterior.mean + posterior.std * noise - 0.25))


def test_decode_undoes_shift_and_scale() -> None:
    z = torch.randn(1, 4, 2, 2, 3, generator=torch.Generator().manual_seed(7))
    plain = build(scale_factor=1.0, shift_factor=0.0)
    torch.testing.assert_close(build().decode(0.5 * (z - 0.25)), plain.decode(z), atol=1e-5, rtol=1e-4)


def test_kl_is_torchs() -> None:
    moments = torch.randn(2, 8, 2, 3, 3, generator=torch.Generator().manual_seed(8))
    posterior = DiagonalGaussian(moments)
    unit = torch.distributions.Normal(0.0, 1.0)
    want = torch.distributions.kl_divergence(torch.distributions.Normal(posterior.mean, posterior.std), unit)
    torch.testing.assert_close(posterior.kl(), want.sum(dim=(1, 2, 3, 4)))


def test_extreme_variances_stay_finite() -> None:
    posterior = DiagonalGaussian(
        torch.cat([torch.zeros(1, 1, 1, 1, 2), torch.tensor([-1e4, 1e4]).view(1, 1, 1, 1, 2)], 1)
    )
    assert posterior.kl().isfinite().all()
    assert posterior.sample(torch.Generator().manual_seed(0)).isfinite().all()


def test_attention_sees_no_later_frame() -> None:
    torch.manual_seed(9)
    attention = FrameCausalAttention(8, groups=2)
    attention.group_norm = torch.nn.Identity()  # its statistics span all frames
    x = torch.randn(1, 8, 4, 2, 3)
    changed = x.clone()
    changed[:, :, 2:] += 1
    moved = (attention(x) - attention(changed)).abs().amax(dim=(0, 1, 3, 4))
    assert moved[:2].max() == 0
    assert moved[2:].min() > 0


def test_attention_equals_the_masked_form() -> None:
    torch.manual_seed(10)
    attention = FrameCausalAttention(8, groups=2)
    x = torch.randn(2, 8, 3, 2, 2)
    tokens = attention.group_norm(x).flatten(2).transpose(1, 2)[:, None]
    frame = torch.arange(3).repeat_interleave(4)
    out = torch.nn.functional.scaled_dot_product_attention(
        attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens), attn_mask=frame[:, None] >= frame
    )
    want = x + attention.to_out[0](out)[:, 0].transpose(1, 2).unflatten(2, (3, 2, 2))
    torch.testing.assert_close(attention(x), want, atol=1e-6, rtol=1e-5)


def test_a_size_of_one_tile_is_not_tiled() -> None:
    whole, tiled = build(), build(use_spatial_tiling=True, use_temporal_tiling=True)
    x = clip(16, 32, 32)
    torch.testing.assert_close(tiled.encode(x), whole.encode(x), atol=0, rtol=0)
    assert not torch.equal(tiled.encode(clip(21, 32, 32)), whole.encode(clip(21, 32, 32)))
    assert not torch.equal(tiled.encode(clip(1, 32, 40)), whole.encode(clip(1, 32, 40)))


@pytest.mark.parametrize("size", [(1, 40, 72), (17, 16, 16), (21, 40, 56), (49, 8, 8), (26, 33, 65)])
def test_tiling_keeps_the_sizes(size: tuple[int, int, int]) -> None:
    vae = build(use_spatial_tiling=True, use_temporal_tiling=True)
    z = vae.encode(clip(*size))
    assert z.shape[2:] == vae.latent_size(*size)
    t, h, w = z.shape[2:]
    assert vae.decode(z).shape[2:] == (4 * (t - 1) + 1, 8 * h, 8 * w)


def scale(factor: int) -> Callable[[Tensor], Tensor]:
    def code(x: Tensor) -> Tensor:
        return x.repeat_interleave(factor, 3).repeat_interleave(factor, 4)

    return code


def test_tiles_of_a_local_function_join_seamlessly() -> None:
    x = torch.randn(1, 2, 3, 11, 14, generator=torch.Generator().manual_seed(11))
    tiling = Tiling.plan(4, 8, 0.25)
    torch.testing.assert_close(tile_space(x, tiling, scale(2)), scale(2)(x), atol=1e-6, rtol=1e-5)


def test_temporal_tiles_of_a_local_function_join_seamlessly() -> None:
    def code(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(2, 2)], 2)

    for frames in (5, 6, 7, 10, 13):
        x = torch.randn(1, 1, frames, 1, 1, generator=torch.Generator().manual_seed(frames))
        torch.testing.assert_close(tile_time(x, Tiling.plan(4, 8, 0.25), code, past=1), code(x), atol=1e-6, rtol=1e-5)


def test_mixing_starts_with_the_old_tile() -> None:
    old, new = torch.zeros(1, 1, 1, 6, 1), torch.ones(1, 1, 1, 5, 1)
    assert mix(old, new, 4, HEIGHT).flatten().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert mix(old[..., :2, :], new, 4, HEIGHT).flatten().tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert mix(old, new, 0, HEIGHT) is new
    in_time = mix(old.transpose(2, 3), new.transpose(2, 3), 4, TIME)
    assert in_time.flatten().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_gradients_pass_through_tiles() -> None:
    vae = build(use_spatial_tiling=True, use_temporal_tiling=True).requires_grad_(True)
    vae.decode(vae.encode(clip(17, 40, 16))).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in vae.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_num_groups": 3}, r"ae\.block_out_channels = .*: 4 is no multiple of ae\.norm_num_groups = 3"),
        ({"sample_size": 8, "tile_overlap_factor": 0.5}, r"ae\.sample_size = 8: .* has no room to advance"),
        ({"sample_tsize": 4, "tile_overlap_factor": 0.5}, r"ae\.sample_tsize = 4"),
    ],
)
def test_impossible_settings_are_explained(change: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        build(**change)
