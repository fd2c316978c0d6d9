"""The blocks of the deep-compression autoencoder. Attribute names are the keys of the published checkpoints.

They work on clips (B, C, T, H, W) or on pictures (B, C, H, W), by the `dims` they are built with: 3 or 2. Unlike in a causal
autoencoder, convolutions pad with zeros on every side, in time too.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-5
ATTENTION_EPS = 1e-15
HEAD = 32
EXPANSION = 4
CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


class ChannelNorm(nn.Module):
    """Root mean square norm over the channels of every pixel, with scale and offset."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...); the statistics are taken in fp32."""
        axes = (-1, *[1] * (x.dim() - 2))
        inverse = x.float().square().mean(1, keepdim=True).add_(NORM_EPS).rsqrt_()
        return torch.addcmul(self.bias.view(axes), x * inverse.to(x.dtype), self.weight.view(axes))


class ConvLayer(nn.Module):
    """A convolution that keeps the size but for its stride, with a norm behind it where one is given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int,
        kernel: int = 3,
        *,
        stride: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = CONVOLUTIONS[dims](
            in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias
        )
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, then normalise."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


class Residual(nn.Module):
    """A module beside a shortcut, which is the input itself unless another is given."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both."""
        return self.main(x) + (x if self.shortcut is None else self.shortcut(x))


class OpList(nn.Module):
    """Modules in a row, under the name that the checkpoints give them."""

    def __init__(self, *operations: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(operations)

    def forward(self, x: Tensor) -> Tensor:
        """Apply one after the other."""
        for operation in self.op_list:
            x = operation(x)
        return x


class ResBlock(nn.Module):
    """Two convolutions; the residual of a `Residual`. With `batch_norm`, batch norm and ReLU instead of RMS norm and SiLU."""

    def __init__(self, channels: int, dims: int, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, dims)
        norm = nn.BatchNorm2d(channels) if batch_norm else ChannelNorm(channels)
        self.conv2 = ConvLayer(channels, channels, dims, bias=False, norm=norm)
        self.activation = F.relu if batch_norm else F.silu

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return self.conv2(self.activation(self.conv1(x)))


class LinearAttention(nn.Module):
    """ReLU linear attention over all pixels of all frames, of the features and (where asked for) of a wider view of them.

    Source: EfficientViT (Cai et al. 2023), section 3.1. A pixel's weights are relu(q) relu(k)^T over their sum, so the
    sums over k and v are formed once and the cost grows with the number of pixels, not with its square.
    """

    def __init__(self, channels: int, dims: int, *, wide: bool) -> None:
        super().__init__()
        inner = 3 * channels
        self.qkv = ConvLayer(channels, inner, dims, 1, bias=False)
        conv = CONVOLUTIONS[dims]
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    conv(inner, inner, 5, padding=2, groups=inner, bias=False),
                    conv(inner, inner, 1, groups=inner // HEAD, bias=False),
                )
            ]
            if wide
            else []
        )
        views = 1 + len(self.aggreg)
        self.proj = ConvLayer(views * channels, channels, dims, 1, bias=False, norm=ChannelNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape; the attention itself is computed in fp32."""
        qkv = self.qkv(x)
        views = torch.cat([qkv, *[wider(qkv) for wider in self.aggreg]], 1) if self.aggreg else qkv
        qkv_BHDN = views.flatten(2).unflatten(1, (-1, 3 * HEAD))
        with _without_autocast(x.device.type):
            query_BHDN, key_BHDN, value_BHDN = qkv_BHDN.float().split(HEAD, 2)
            key_BHDN, query_BHDN = F.relu(key_BHDN), F.relu(query_BHDN)
            out_BHDN = (value_BHDN @ key_BHDN.mT) @ query_BHDN
            total_BH1N = key_BHDN.sum(-1)[:, :, None] @ query_BHDN
            out_BHDN = (out_BHDN / (total_BH1N + ATTENTION_EPS)).to(qkv.dtype)
        return self.proj(out_BHDN.flatten(1, 2).unflatten(2, x.shape[2:]))


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """The meta device, on which plans are made, knows no autocast."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class GatedConv(nn.Module):
    """Widen, convolve each channel, let one half gate the other, narrow."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.inverted_conv = ConvLayer(channels, 2 * inner, dims, 1)
        self.depth_conv = ConvLayer(2 * inner, 2 * inner, dims, groups=2 * inner)
        self.point_conv = ConvLayer(inner, channels, dims, 1, bias=False, norm=ChannelNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        features, gate = self.depth_conv(F.silu(self.inverted_conv(x))).chunk(2, 1)
        return self.point_conv(features * F.silu(gate))


class AttentionBlock(nn.Module):
    """Linear attention for the context, a gated convolution for the neighbourhood."""

    def __init__(self, channels: int, dims: int, *, wide: bool) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels, dims, wide=wide))
        self.local_module = Residual(GatedConv(channels, dims))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return self.local_module(self.context_module(x))
