"""The block of STDiT. Attribute names are the keys of the published checkpoints.

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

GATE = 2
"""The row of the table that gates the attention."""


class Block(nn.Module):
    """Attention within a frame, along time and to the text, and an MLP (Open-Sora 1.0)."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.attn = SpatialAttention(dim, heads)
        self.attn_temp = TemporalAttention(dim, heads)
        self.cross_attn = CrossAttention(dim, heads)
        self.mlp = Mlp(dim, mlp_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self,
        x_BTSD: Tensor,
        text_BLD: Tensor,
        text_mask_BL: Tensor | None,
        cond_BF6D: Tensor,
        gate_B1D: Tensor,
        times_TD: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens after the block.

        Attention along time reads the tokens as they are, plus the table `times_TD` in the first block; frames that are
        given have its gate, from `gate_B1D`, like the others.
        """
        dtype = x_BTSD.dtype
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors(self.scale_shift_table, cond_BF6D, dtype)
        time_gate = (self.scale_shift_table[GATE] + gate_B1D).to(dtype)[:, None]
        x_BTSD = torch.addcmul(x_BTSD, gate, self.attn(modulate(x_BTSD, shift, scale)))
        placed_BTSD = x_BTSD if times_TD is None else x_BTSD + times_TD[:, None].to(dtype)
        x_BTSD = torch.addcmul(x_BTSD, time_gate, self.attn_temp(placed_BTSD))
        x_BTSD = x_BTSD + self.cross_attn(x_BTSD.flatten(1, 2), text_BLD, text_mask_BL).view_as(x_BTSD)
        return torch.addcmul(x_BTSD, mlp_gate, self.mlp(modulate(x_BTSD, mlp_shift, mlp_scale)))
