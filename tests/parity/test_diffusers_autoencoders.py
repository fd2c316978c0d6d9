"""Diffusers' autoencoders with the same weights, carried over both ways by the key tables, give the same numbers."""

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from opensora_models.autoencoder_2d import weights as flux_weights
from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.dc_ae import weights as dc_weights
from opensora_models.dc_ae.model import DCAE
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.layers.renaming import Rules, from_layout, to_layout
from schemas.autoencoder import AutoEncoder2DConfig, DCAEConfig, HunyuanVAEConfig
from schemas.autoencoder.dc_ae import DCAEShape, named_shape


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


def both_ways(ours: nn.Module, theirs: nn.Module, rules: Rules, linear: str) -> None:
    """Carry diffusers' weights over to ours, and ours back into an untouched copy of theirs, both strictly."""
    randomised(theirs, 3)
    ours.load_state_dict(from_layout(theirs.state_dict(), ours.state_dict(), rules))
    back = to_layout(ours.state_dict(), rules, linear)
    assert back.keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(back[key], tensor), key
    ours.eval().requires_grad_(False)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("gradients", [True, False])
def test_hunyuan(frames: int, gradients: bool) -> None:
    sizes = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4}
    ours = HunyuanVAE(HunyuanVAEConfig.model_validate(sizes))
    theirs = AutoencoderKLHunyuanVideo(**sizes)
    both_ways(ours, theirs, (), "^$")
    x = noise(2, 3, frames, 24, 32)
    with torch.set_grad_enabled(gradients):
        close(ours.posterior(x).moments, theirs.encode(x).latent_dist.parameters)
        z = noise(1, 4, (frames - 1) // 4 + 1, 3, 4)
        close(ours.decode(z * ours.config.scale_factor), theirs.decode(z).sample)


def test_flux() -> None:
    config = AutoEncoder2DConfig(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, z_channels=4)
    theirs = AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    ours = AutoEncoder2D(config)
    both_ways(ours, theirs, flux_weights.diffusers_rules(3), flux_weights.DIFFUSERS_LINEAR)
    x = noise(2, 3, 1, 16, 24)
    close(ours.posterior(x).moments[:, :, 0], theirs.encode(x[:, :, 0]).latent_dist.parameters)
    z = noise(2, 4, 1, 4, 6)
    raw = (z / config.scale_factor + config.shift_factor)[:, :, 0]
    close(ours.decode(z)[:, :, 0], theirs.decode(raw).sample)


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


def diffusers_dc(shape: DCAEShape) -> AutoencoderDC:
    kinds = ["ResBlock" if kind == "ResBlock" else "EfficientViTBlock" for kind in shape.block_type]
    scales = tuple((5,) if kind == "EViTS5_GLU" else () for kind in shape.block_type)
    batch = [shape.decoder_batch_norm and kind == "ResBlock" for kind in kinds]
    return AutoencoderDC(
        latent_channels=shape.latent_channels,
        encoder_block_types=kinds,
        decoder_block_types=kinds,
        encoder_block_out_channels=shape.width_list,
        decoder_block_out_channels=shape.width_list,
        encoder_layers_per_block=shape.encoder_depth_list,
        decoder_layers_per_block=shape.decoder_depth_list,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        downsample_block_type="conv" if shape.downsample == "Conv" else "pixel_unshuffle",
        upsample_block_type="interpolate" if shape.upsample == "InterpolateConv" else "pixel_shuffle",
        decoder_norm_types=["batch_norm" if one else "rms_norm" for one in batch],
        decoder_act_fns=["relu" if one else "silu" for one in batch],
    )


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dc(flavour: str) -> None:
    ours = DCAE(tiny(flavour))
    theirs = diffusers_dc(ours.shape)
    both_ways(ours, theirs, dc_weights.diffusers_rules(ours.shape), dc_weights.DIFFUSERS_LINEAR)
    x = noise(2, 3, 2, 32, 48)
    z = ours.encode(x)
    assert z.shape[2:] == ours.latent_size(2, 32, 48)
    close(z[:, :, 1], theirs.encode(x[:, :, 1]).latent)
    close(ours.decode(z)[:, :, 1], theirs.decode(z[:, :, 1]).sample)


@pytest.mark.parametrize("name", ["dc-ae-f32c32-sana-1.0", "dc-ae-f32c32-in-1.0", "dc-ae-f128c512-mix-1.0"])
def test_published_shapes_have_diffusers_keys(name: str) -> None:
    shape = named_shape(name)
    with torch.device("meta"):
        ours, theirs = DCAE(DCAEConfig(model_name=name)), diffusers_dc(shape)
    carried = from_layout(theirs.state_dict(), ours.state_dict(), dc_weights.diffusers_rules(shape))
    assert {key: value.shape for key, value in carried.items()} == {
        key: value.shape for key, value in ours.state_dict().items()
    }
