"""The blocks of PixArt (Chen et al. 2023, section 2.3) and their attention with fewer keys (PixArt-Sigma, section 3.3).

B batch, N tokens of a clip (T frames of R rows and C columns), L text tokens, D width, H heads, K features of a head.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_models.layers.latent_attention import (
    Attention,
    CrossAttention,
    HeadNorm,
    Mlp,
    SelfAttention,
    attention,
    modulate,
)
from schemas.denoiser.pixart import KVCompression, Sampling

Grid = tuple[int, int, int]


class CompressedAttention(nn.Module):
    """Self attention whose keys and values are fewer than its queries: some stand for a square of tokens of a frame.

    `attention` is the kernel, and may be exchanged. The convolution starts as the mean of a square.
    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool, sampling: Sampling, factor: int) -> None:
        super().__init__()
        self.attention: Attention = attention
        self.heads = heads
        self.sampling = sampling
        self.factor = factor
        self.qkv = nn.Linear(dim, 3 * dim)
        if sampling == "conv":
            self.sr = nn.Conv2d(dim, dim, factor, factor, groups=dim)
            self.norm = nn.LayerNorm(dim)
            nn.init.constant_(self.sr.weight, 1 / factor**2)
            nn.init.zeros_(self.sr.bias)
        self.q_norm = HeadNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor, grid: Grid) -> Tensor:
        """Return (B, N, D); keys are normalised after they are compressed."""
        q_BND, k_BND, v_BND = self.qkv(x_BND).chunk(3, -1)
        parts = (q_BND, self.compress(k_BND, grid), self.compress(v_BND, grid))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        q, k = self.q_norm(q), self.k_norm(k)
        return self.proj(self.attention(q.to(v.dtype), k.to(v.dtype), v).flatten(-2))

    def compress(self, tokens_BND: Tensor, grid: Grid) -> Tensor:
        """Return fewer tokens, in the order of frames, rows, columns; rows and columns that fill no square are left out."""
        frames, rows, columns = grid
        factor = self.factor
        if self.sampling == "uniform_every":
            whole = tokens_BND.shape[1] // factor * factor
            return tokens_BND[:, :whole:factor]
        if self.sampling == "conv":
            x = rearrange(tokens_BND, "b (t r c) d -> (b t) d r c", t=frames, r=rows)
            return self.norm(rearrange(self.sr(x), "(b t) d r c -> b (t r c) d", t=frames))
        x = rearrange(tokens_BND, "b (t r c) d -> b t r c d", t=frames, r=rows)
        rows, columns = rows // factor * factor, columns // factor * factor
        return x[:, :, :rows:factor, :columns:factor].flatten(1, 3)


class PixArtBlock(nn.Module):
    """Self attention and an MLP, modulated by shared vectors plus the block's own table; cross attention between them."""

    def __init__(
        self, dim: int, heads: int, mlp_dim: int, *, qk_norm: bool = False, compression: KVCompression | None = None
    ) -> None:
        super().__init__()
        self.attn: SelfAttention | CompressedAttention
        if compression is None:
            self.attn = SelfAttention(dim, heads, qk_norm=qk_norm)
        else:
            self.attn = CompressedAttention(
                dim, heads, qk_norm=qk_norm, sampling=compression.sampling, factor=compression.scale_factor
            )
        self.cross_attn = CrossAttention(dim, heads)
        self.mlp = Mlp(dim, mlp_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def forward(
        self, x_BND: Tensor, text_BLD: Tensor, vectors_B6D: Tensor, text_mask_BL: Tensor | None, grid: Grid
    ) -> Tensor:
        """Return (B, N, D). Cross attention sees the tokens as they are: not normalised, not gated."""
        vectors = (self.scale_shift_table + vectors_B6D).to(x_BND.dtype).chunk(6, 1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors
        x_BND = x_BND + gate * self._attend(modulate(x_BND, shift, scale), grid)
        x_BND = x_BND + self.cross_attn(x_BND, text_BLD, text_mask_BL)
        return x_BND + mlp_gate * self.mlp(modulate(x_BND, mlp_shift, mlp_scale))

    def _attend(self, x_BND: Tensor, grid: Grid) -> Tensor:
        return self.attn(x_BND, grid) if isinstance(self.attn, CompressedAttention) else self.attn(x_BND)
