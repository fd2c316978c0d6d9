"""A discriminator of clips, patch by patch (PatchGAN, arXiv 1611.07004, in three dimensions)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from opensora_models.discriminator.weights import LIKELY_CAUSES
from schemas.discriminator import DiscriminatorConfig

SLOPE = 0.2
WIDEST = 8
"""Widths double per layer up to so many times the first."""


class KeyedDropout(nn.Module):
    """Dropout whose draws come from a generator of the caller's, so that a resumed run repeats them."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Zero a share of the features while training and scale the rest up. Raises ValueError without a generator then."""
        if not self.training or self.share == 0:
            return x
        if generator is None:
            raise ValueError("a discriminator with dropout needs a generator while it trains")
        keep = torch.empty_like(x).bernoulli_(1 - self.share, generator=generator)
        return x * keep / (1 - self.share)


class PatchDiscriminator3D(nn.Module):
    """Clips (B, 3, T, H, W) to logits (B, 1, t, h, w): the first layers halve time and space, the later ones space alone.

    State-dict keys are upstream's (N_Layer_discriminator_3D): convolutions in `main`, a batch norm behind all but the
    first and the last. Time is halved by the first layer and by the second, if there are two.
    """

    likely_causes = LIKELY_CAUSES

    def __init__(self, config: DiscriminatorConfig, channels: int = 3) -> None:
        super().__init__()
        widths = [config.ndf * min(2**layer, WIDEST) for layer in range(config.n_layers + 1)]
        layers: list[nn.Module] = [nn.Conv3d(channels, widths[0], 3, 2, 1), nn.LeakyReLU(SLOPE)]
        for number, (before, width) in enumerate(pairwise(widths), start=1):
            stride = (1, 1, 1) if number == config.n_layers else (2 if number == 1 else 1, 2, 2)
            layers += [
                nn.Conv3d(before, width, 3, stride, 1, bias=False),
                nn.BatchNorm3d(width),
                nn.LeakyReLU(SLOPE),
                KeyedDropout(config.dropout),
            ]
        layers.append(nn.Conv3d(widths[-1], 1, 3, 1, 1))
        self.main = nn.Sequential(*layers)

    def forward(self, x_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a logit for each patch, high for what looks real; while training, dropout draws from the generator."""
        for layer in self.main:
            x_BCTHW = layer(x_BCTHW, generator) if isinstance(layer, KeyedDropout) else layer(x_BCTHW)
        return x_BCTHW


@torch.no_grad()
def init_discriminator(model: PatchDiscriminator3D, generator: torch.Generator) -> None:
    """Draw the weights as pix2pix does: convolutions from N(0, 0.02), norms from N(1, 0.02), biases 0 (arXiv 1611.07004, 6.2)."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.BatchNorm3d):
            mean = 0.0 if isinstance(module, nn.Conv3d) else 1.0
            drawn = mean + 0.02 * torch.randn(module.weight.shape, generator=generator)
            module.weight.copy_(drawn)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
