"""Diffusers' autoencoders with the same weights, carried over both ways by the key tables, give the same numbers."""

import pytest
import torch
from torch import Tensor, nn

from opensora_cli.planning.traced import LiveStorages
from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.autoencoder_kl.model import AutoencoderKL, AutoencoderKLTemporalDecoder
from opensora_models.dc_ae.model import DCAE
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.layers.renaming import from_layout, to_layout
from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    DCAEConfig,
    HunyuanVAEConfig,
)
from schemas.autoencoder.dc_ae import DCAEShape
from tests.parity.diffusers_peers import Peer, peer_of, rules_of


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Draw every weight, norms and running statistics among them, so that each one counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(noise.square() + 0.5)
            elif tensor.dim() < 2:
                tensor.copy_(0.2 * noise + ("weight" in name))
            else:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
    return module.eval().requires_grad_(False)


def both_ways(ours: nn.Module, config: AutoencoderConfig) -> Peer:
    """Carry diffusers' weights over to ours, and ours back into an untouched copy of theirs, both strictly."""
    theirs = peer_of(config)
    rules, linear = rules_of(config)
    randomised(theirs, 3)
    ours.load_state_dict(from_layout(theirs.state_dict(), ours.state_dict(), rules))
    back = to_layout(ours.state_dict(), rules, linear)
    assert back.keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(back[key], tensor), key
    ours.eval().requires_grad_(False)
    return theirs


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)


HUNYUAN = HunyuanVAEConfig(block_out_channels=(8, 16, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4)


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("gradients", [True, False])
def test_hunyuan(frames: int, gradients: bool) -> None:
    ours = HunyuanVAE(HUNYUAN)
    theirs = both_ways(ours, HUNYUAN)
    x = noise(2, 3, frames, 24, 32)
    with torch.set_grad_enabled(gradients):
        close(ours.posterior(x).moments, theirs.encode(x).latent_dist.parameters)
        z = noise(1, 4, (frames - 1) // 4 + 1, 3, 4)
        close(ours.decode(z * ours.config.scale_factor), theirs.decode(z).sample)


def in_their_tiles(config: HunyuanVAEConfig) -> HunyuanVAEConfig:
    """Diffusers' class, unless told otherwise, cuts clips into tiles of 16 frames that overlap by a quarter."""
    return config.model_copy(update={"use_temporal_tiling": True, "sample_tsize": 16})


def test_hunyuan_in_tiles_of_time() -> None:
    config = in_their_tiles(HUNYUAN)
    ours = HunyuanVAE(config)
    theirs = both_ways(ours, config)
    x, z = noise(1, 3, 33, 16, 16), noise(1, 4, 9, 2, 2)
    close(ours.posterior(x).moments, theirs.encode(x).latent_dist.parameters)
    close(ours.decode(z * ours.config.scale_factor), theirs.decode(z).sample)


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_hunyuan_takes_at_most_four_fifths_of_the_memory(direction: str) -> None:
    """The published widths, on tensors without numbers; benchmarks/vae.py compares whole processes, and tiles."""
    size = (3, 17, 128, 128) if direction == "encode" else (16, 5, 16, 16)
    with torch.device("meta"), torch.no_grad():
        ours, theirs, x = HunyuanVAE(HunyuanVAEConfig()), peer_of(HunyuanVAEConfig()), torch.empty(1, *size)
        theirs.use_framewise_encoding = theirs.use_framewise_decoding = False
        peaks = []
        for module in (ours, theirs):
            with LiveStorages() as live:
                module.encode(x) if direction == "encode" else module.decode(x)
            peaks.append(live.peak)
    assert peaks[0] <= 0.8 * peaks[1]


def test_flux() -> None:
    config = AutoEncoder2DConfig(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, z_channels=4)
    ours = AutoEncoder2D(config)
    theirs = both_ways(ours, config)
    x = noise(2, 3, 1, 16, 24)
    close(ours.posterior(x).moments[:, :, 0], theirs.encode(x[:, :, 0]).latent_dist.parameters)
    z = noise(2, 4, 1, 4, 6)
    raw = (z / config.scale_factor + config.shift_factor)[:, :, 0]
    close(ours.decode(z)[:, :, 0], theirs.decode(raw).sample)


def test_stable_diffusion() -> None:
    config = AutoencoderKLConfig(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4)
    ours = AutoencoderKL(config)
    theirs = both_ways(ours, config)
    x, z = noise(2, 3, 1, 16, 24), noise(2, 4, 1, 4, 6)
    close(ours.posterior(x).moments[:, :, 0], theirs.encode(x[:, :, 0]).latent_dist.parameters)
    close(ours.decode(z)[:, :, 0], theirs.decode(z[:, :, 0] / config.scale_factor).sample)


@pytest.mark.parametrize("layers", [1, 3])
def test_stable_video_diffusion(layers: int) -> None:
    config = AutoencoderKLTemporalDecoderConfig(block_out_channels=(32, 64), layers_per_block=layers)
    ours = AutoencoderKLTemporalDecoder(config)
    theirs = both_ways(ours, config)
    x, z = noise(2, 3, 1, 16, 24), noise(2, 4, 3, 4, 6)
    close(ours.posterior(x).moments[:, :, 0], theirs.encode(x[:, :, 0]).latent_dist.parameters)
    row = z.transpose(1, 2).flatten(0, 1) / config.scale_factor
    close(ours.decode(z).transpose(1, 2).flatten(0, 1), theirs.decode(row, num_frames=3).sample)


@pytest.mark.parametrize(
    ("family", "config"),
    [(AutoencoderKL, AutoencoderKLConfig()), (AutoencoderKLTemporalDecoder, AutoencoderKLTemporalDecoderConfig())],
)
def test_published_shapes_of_stable_diffusion_have_diffusers_keys(
    family: type[nn.Module], config: AutoencoderConfig
) -> None:
    with torch.device("meta"):
        ours, theirs = family(config), peer_of(config)
    shapes = [{key: value.shape for key, value in module.state_dict().items()} for module in (ours, theirs)]
    assert shapes[0] == shapes[1]


FLAVOURS = {
    "sana": {"block_type": ("ResBlock", "ResBlock", "EViTS5_GLU")},
    "first series": {
        "block_type": ("ResBlock", "ResBlock", "EViT_GLU"),
        "encoder_depth_list": (0, 1, 2),
        "decoder_depth_list": (0, 2, 1),
        "downsample": "ConvPixelUnshuffle",
        "upsample": "ConvPixelShuffle",
        "decoder_batch_norm": True,
    },
}


def tiny(flavour: str) -> DCAEConfig:
    lists = {"width_list": (16, 32, 64), "encoder_depth_list": (1, 1, 2), "decoder_depth_list": (1, 2, 1)}
    keys = {"latent_channels": 8, "temporal_downsample": (False,) * 3, "is_video": False, **lists, **FLAVOURS[flavour]}
    return DCAEConfig(model_name="custom", shape=DCAEShape.model_validate(keys))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dc(flavour: str) -> None:
    ours = DCAE(tiny(flavour))
    theirs = both_ways(ours, ours.config)
    x = noise(2, 3, 2, 32, 48)
    z = ours.encode(x)
    assert z.shape[2:] == ours.latent_size(2, 32, 48)
    close(z[:, :, 1], theirs.encode(x[:, :, 1]).latent)
    close(ours.decode(z)[:, :, 1], theirs.decode(z[:, :, 1]).sample)


@pytest.mark.parametrize("name", ["dc-ae-f32c32-sana-1.0", "dc-ae-f32c32-in-1.0", "dc-ae-f128c512-mix-1.0"])
def test_published_shapes_have_diffusers_keys(name: str) -> None:
    config = DCAEConfig(model_name=name)
    with torch.device("meta"):
        ours, theirs = DCAE(config), peer_of(config)
    carried = from_layout(theirs.state_dict(), ours.state_dict(), rules_of(config)[0])
    assert {key: value.shape for key, value in carried.items()} == {
        key: value.shape for key, value in ours.state_dict().items()
    }
