"""Diffusers' autoencoders of the shapes that our configurations describe, and how the weights go from one to the other."""

from typing import Any, assert_never

from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLHunyuanVideo, AutoencoderKLTemporalDecoder

from opensora_models.autoencoder_2d import weights as flux_weights
from opensora_models.dc_ae import weights as dc_weights
from opensora_models.layers.renaming import Rules
from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    DCAEConfig,
    HunyuanVAEConfig,
    OpenSoraVAEConfig,
    VAETemporalConfig,
)
from schemas.autoencoder.dc_ae import DCAEShape

Peer = AutoencoderKLHunyuanVideo | AutoencoderDC | AutoencoderKL | AutoencoderKLTemporalDecoder


def peer_of(config: AutoencoderConfig) -> Peer:
    """Build diffusers' class with random weights; DC-AE in its flavours for pictures."""
    match config:
        case HunyuanVAEConfig():
            return _hunyuan(config)
        case DCAEConfig():
            return _dc(config.stages)
        case AutoEncoder2DConfig():
            return _flux(config)
        case AutoencoderKLConfig():
            return _stable_diffusion(config)
        case AutoencoderKLTemporalDecoderConfig():
            return _stable_video_diffusion(config)
        case VAETemporalConfig() | OpenSoraVAEConfig():
            raise ValueError(f"diffusers has no {config.type}")
        case _:
            assert_never(config)


def rules_of(config: AutoencoderConfig) -> tuple[Rules, str]:
    """Return the key table, and which of their keys hold 1x1 convolutions as matrices."""
    match config:
        case HunyuanVAEConfig() | AutoencoderKLConfig() | AutoencoderKLTemporalDecoderConfig():
            return (), "^$"
        case VAETemporalConfig() | OpenSoraVAEConfig():
            raise ValueError(f"diffusers has no {config.type}")
        case DCAEConfig():
            return dc_weights.diffusers_rules(config.stages), dc_weights.DIFFUSERS_LINEAR
        case AutoEncoder2DConfig():
            return flux_weights.diffusers_rules(len(config.ch_mult)), flux_weights.DIFFUSERS_LINEAR
        case _:
            assert_never(config)


def _hunyuan(config: HunyuanVAEConfig) -> AutoencoderKLHunyuanVideo:
    shared = ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups")
    keys: dict[str, Any] = {name: getattr(config, name) for name in shared}
    return AutoencoderKLHunyuanVideo(**keys)


def _flux(config: AutoEncoder2DConfig) -> AutoencoderKL:
    widths = tuple(config.ch * factor for factor in config.ch_mult)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=config.num_res_blocks,
        latent_channels=config.z_channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _stable_diffusion(config: AutoencoderKLConfig) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=config.block_out_channels,
        down_block_types=("DownEncoderBlock2D",) * len(config.block_out_channels),
        up_block_types=("UpDecoderBlock2D",) * len(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
    )


def _stable_video_diffusion(config: AutoencoderKLTemporalDecoderConfig) -> AutoencoderKLTemporalDecoder:
    return AutoencoderKLTemporalDecoder(
        block_out_channels=config.block_out_channels,
        down_block_types=("DownEncoderBlock2D",) * len(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
    )


def _dc(shape: DCAEShape) -> AutoencoderDC:
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
