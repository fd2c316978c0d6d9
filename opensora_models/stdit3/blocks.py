"""The blocks of STDiT3. Attribute names are the keys of the published checkpoints.

B batch, T frames of patches, S tokens of a frame, L text tokens, D width, F frames that have a condition of their own (T), or 1.
"""

import torch
from torch import Tensor, nn

from opensora_models.layers.latent_attention import (
    CrossAttention,
    Mlp,
    SpatialAttention,
    TemporalAttention,
    modulate,
    vectors,
)


class Block(nn.Module):
    """Self attention, attention to the text, and an MLP."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, attn: SpatialAttention | TemporalAttention) -> None:
        super().__init__()
        self.attn = attn
        self.cross_attn = CrossAttention(dim, heads)
        self.mlp = Mlp(dim, mlp_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self,
        x_BTSD: Tensor,
        text_BLD: Tensor,
        text_mask_BL: Tensor | None,
        cond_BF6D: Tensor,
        rotation_T1K2: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens after the block. `rotation_T1K2` is for temporal attention."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors(self.scale_shift_table, cond_BF6D, x_BTSD.dtype)
        more = () if rotation_T1K2 is None else (rotation_T1K2,)
        x_BTSD = torch.addcmul(x_BTSD, gate, self.attn(modulate(x_BTSD, shift, scale), *more))
        x_BTSD = x_BTSD + self.cross_attn(x_BTSD.flatten(1, 2), text_BLD, text_mask_BL).view_as(x_BTSD)
        return torch.addcmul(x_BTSD, mlp_gate, self.mlp(modulate(x_BTSD, mlp_shift, mlp_scale)))


def spatial_block(dim: int, heads: int, mlp_dim: int, qk_norm: bool) -> Block:
    """Return a block whose tokens see those of their frame."""
    return Block(dim, heads, mlp_dim, SpatialAttention(dim, heads, qk_norm=qk_norm))


def temporal_block(dim: int, heads: int, mlp_dim: int, qk_norm: bool) -> Block:
    """Return a block whose tokens see those at their place in all frames."""
    return Block(dim, heads, mlp_dim, TemporalAttention(dim, heads, qk_norm=qk_norm))
