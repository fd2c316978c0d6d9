"""The block of STDiT2. Attribute names are the keys of the published checkpoints.

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
    """Attention within a frame, along time and to the text, and an MLP; time has a condition of its own."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, qk_norm: bool, rotate_first: bool) -> None:
        super().__init__()
        self.attn = SpatialAttention(dim, heads, qk_norm=qk_norm)
        self.attn_temp = TemporalAttention(dim, heads, qk_norm=qk_norm, rotate_first=rotate_first)
        self.cross_attn = CrossAttention(dim, heads)
        self.mlp = Mlp(dim, mlp_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.scale_shift_table_temporal = nn.Parameter(torch.randn(3, dim) / dim**0.5)

    def forward(
        self,
        x_BTSD: Tensor,
        text_BLD: Tensor,
        text_mask_BL: Tensor | None,
        cond_BF6D: Tensor,
        time_BF3D: Tensor,
        rotation_T1K2: Tensor,
    ) -> Tensor:
        """Return the tokens after the block; `time_BF3D` is the condition of the attention along time."""
        dtype = x_BTSD.dtype
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors(self.scale_shift_table, cond_BF6D, dtype)
        time_shift, time_scale, time_gate = vectors(self.scale_shift_table_temporal, time_BF3D, dtype)
        x_BTSD = torch.addcmul(x_BTSD, gate, self.attn(modulate(x_BTSD, shift, scale)))
        through_time = self.attn_temp(modulate(x_BTSD, time_shift, time_scale), rotation_T1K2)
        x_BTSD = torch.addcmul(x_BTSD, time_gate, through_time)
        x_BTSD = x_BTSD + self.cross_attn(x_BTSD.flatten(1, 2), text_BLD, text_mask_BL).view_as(x_BTSD)
        return torch.addcmul(x_BTSD, mlp_gate, self.mlp(modulate(x_BTSD, mlp_shift, mlp_scale)))
