"""How a denoiser of latents is divided: by the tokens of a frame, which its spatial attention alone brings together.

This is the plan alone; `opensora_cli.distributed` knows the processes and carries it out. Every frame is divided alike, so
attention along time, attention to the text and the MLPs see all that they need.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import nn

from opensora_models.layers.latent_attention import SpatialAttention
from opensora_models.layers.latent_patches import Tokens


@runtime_checkable
class SharesFrames(Protocol):
    """A denoiser whose frames may be divided: `tokens_in` is called before its blocks, `tokens_out` on their patches."""

    tokens_in: Tokens
    tokens_out: Tokens


def spatial_attention(model: nn.Module) -> Iterator[SpatialAttention]:
    """Yield the layers whose `attention` spans all tokens of a frame."""
    yield from (layer for layer in model.modules() if isinstance(layer, SpatialAttention))
