"""A start for small autoencoders trained from nothing: pictures pass through, blurred, before the first step.

The first eight channels of every width are kept for this. Six carry plus and minus each colour: silu(x) - silu(-x) = x,
so a pair comes through the activation unharmed. Two carry a constant that outweighs all else, so that a group norm over
all channels divides by a known number instead of taking brightness away. Residual branches start at zero, strided
convolutions average, the ones after an upsampling smooth. What is left to learn is what the average lost.
"""

import math
from typing import TypeGuard

import torch
from torch import Tensor, nn

from opensora_models.hunyuan_vae.blocks import Downsample, FrameCausalAttention, ResnetBlock, Upsample
from opensora_models.hunyuan_vae.model import HunyuanVAE

COLOURS = ((0, 1.0), (1, 1.0), (2, 1.0), (0, -1.0), (1, -1.0), (2, -1.0))
"""Colour and sign of the channels 0 to 5; 6 and 7 are the constants."""
RESERVED = 8
NORM_VARIANCE = 2.0
LOG_VARIANCE = -6.0
"""Of the posterior: sampling noise of 0.05 does not drown the first latents."""


def can_pass_through(model: nn.Module) -> TypeGuard[HunyuanVAE]:
    """Whether a model has room for it.

    That is: this family, RGB in and out, one norm group, eight channels at every width, three latents.
    """
    if not isinstance(model, HunyuanVAE):
        return False
    config = model.config
    return (
        config.in_channels == config.out_channels == 3
        and config.norm_num_groups == 1
        and min(config.block_out_channels) >= RESERVED
        and config.latent_channels >= 3
    )


@torch.no_grad()
def init_pass_through(model: HunyuanVAE, generator: torch.Generator) -> None:
    """Set the weights of a model for which `can_pass_through` holds; what is not fixed is drawn from the generator."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            fan = module.weight[0].numel()
            _draw(module, 1 / math.sqrt(fan), generator)
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            _residual(module, generator)
        elif isinstance(module, Downsample):
            _keep(module.conv.conv, _mean_kernel(module.conv.conv))
        elif isinstance(module, Upsample):
            _keep(module.conv.conv, _smooth_kernel(module.conv.conv))
        elif isinstance(module, FrameCausalAttention):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
    for coder in (model.encoder, model.decoder):
        _enter(coder.conv_in.conv)
    _leave(model.encoder.conv_out.conv, model.latent_channels)
    _leave(model.decoder.conv_out.conv, 3)
    for one in (model.quant_conv, model.post_quant_conv):
        one.weight.copy_(torch.eye(len(one.weight)).view_as(one.weight))
    model.quant_conv.bias[model.latent_channels :] = LOG_VARIANCE


def _draw(conv: nn.Conv3d, std: float, generator: torch.Generator) -> None:
    conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * std)
    nn.init.zeros_(conv.bias)


def _residual(block: ResnetBlock, generator: torch.Generator) -> None:
    _draw(block.conv1.conv, math.sqrt(2 / block.conv1.conv.weight[0].numel()), generator)
    nn.init.zeros_(block.conv2.conv.weight)
    if isinstance(block.conv_shortcut, nn.Identity):
        return
    conv = next(module for module in block.conv_shortcut.modules() if isinstance(module, nn.Conv3d))
    _keep(conv, torch.ones(1, 1, 1))
    width_out, width_in = conv.weight.shape[:2]
    for channel in (6, 7):  # the constants' share of the variance must stay what it is
        conv.weight[channel, channel] *= math.sqrt(width_out / width_in)


def _keep(conv: nn.Conv3d, kernel_THW: Tensor) -> None:
    """Let the reserved channels through the kernel, and keep the constants out of the others."""
    conv.weight[:RESERVED] = 0
    conv.weight[RESERVED:, 6:8] = 0
    for channel in range(RESERVED):
        conv.weight[channel, channel] = kernel_THW


def _mean_kernel(conv: nn.Conv3d) -> Tensor:
    """Average the pixels, and with a stride in time the two newest frames, that a strided convolution puts together."""
    kernel_THW = torch.zeros(conv.kernel_size)
    frames = conv.stride[0]
    kernel_THW[-frames:, 1:, 1:] = 1 / (4 * frames)
    return kernel_THW


def _smooth_kernel(conv: nn.Conv3d) -> Tensor:
    """Smooth what nearest-neighbour upsampling made blocky, with the weights 1 2 1."""
    kernel_THW = torch.zeros(conv.kernel_size)
    line_H = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel_THW[-1] = line_H[:, None] * line_H[None]
    return kernel_THW


def _enter(conv: nn.Conv3d) -> None:
    conv.weight[:RESERVED] = 0
    for channel, (colour, sign) in enumerate(COLOURS):
        conv.weight[channel, colour, -1, 1, 1] = sign
    constant = math.sqrt(NORM_VARIANCE * len(conv.weight) / 2)
    conv.bias[6], conv.bias[7] = constant, -constant


def _leave(conv: nn.Conv3d, means: int) -> None:
    """Put the colours together again behind norm and activation; the log variances start at their bias alone."""
    conv.weight[:3] = 0
    conv.weight[means:] = 0
    for channel, (colour, sign) in enumerate(COLOURS):
        conv.weight[colour, channel, -1, 1, 1] = sign * math.sqrt(NORM_VARIANCE)
