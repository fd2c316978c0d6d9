"""The attention, MLP and modulation that the denoisers of Open-Sora 1.x are made of.

B batch, T frames, S tokens of a frame, N sequences (clips, frames of clips, or places in a frame), L tokens of a sequence,
D width, H heads, K features of a head, F frames that have a condition of their own, or 1. Attribute names are the keys of the
published checkpoints.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys, values, each (N, L, H, K), to what each query sees, of the queries' shape; keys have no order."""

NORM_EPS = 1e-6


def attention(q_NLHK: Tensor, k_NLHK: Tensor, v_NLHK: Tensor) -> Tensor:
    """Let each query see every token of its sequence, by PyTorch's fused kernels."""
    out_NHLK = F.scaled_dot_product_attention(q_NLHK.transpose(1, 2), k_NLHK.transpose(1, 2), v_NLHK.transpose(1, 2))
    return out_NHLK.transpose(1, 2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return the parameter-free layer norm of `x`, scaled and shifted by the condition (DiT, section 3.2)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


def vectors(table_VD: Tensor, cond_BFVD: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Return V vectors (B, F, 1, D), each a learned one plus the condition's (PixArt-alpha's adaLN-single, section 2.3)."""
    return list((table_VD + cond_BFVD).to(dtype)[:, :, :, None].unbind(2))


def by_frame(denoised_B1D: Tensor, given_B1D: Tensor, x_mask_BT: Tensor | None) -> Tensor:
    """Return the condition (B, F, D): of frames that are denoised, and of those that are given; F is 1 without a mask."""
    return denoised_B1D if x_mask_BT is None else torch.where(x_mask_BT[:, :, None], denoised_B1D, given_B1D)


def rotation(length: int, dim: int, device: torch.device | None = None, theta: float = 10_000.0) -> Tensor:
    """Return cosine and sine (L, 1, K/2, 2), fp32, of pair j at token n turned by n / theta^(2j/dim) (RoFormer, 3.2.2)."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    angles = torch.arange(length, dtype=torch.float64, device=device)[:, None] / theta**exponents
    return torch.stack([angles.cos(), angles.sin()], -1).float()[:, None]


def rotate(x_NLHK: Tensor, rotation_L1K2: Tensor) -> Tensor:
    """Turn neighbouring features of queries or keys as pairs, in fp32; the result has the dtype of `x_NLHK`."""
    pairs = x_NLHK.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # compilers know no complex numbers, and fuse what is slow otherwise
        (x, y), (cos, sin) = pairs.unbind(-1), rotation_L1K2.unbind(-1)
        turned = torch.stack([x * cos - y * sin, x * sin + y * cos], -1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation_L1K2))
    return turned.flatten(-2).to(x_NLHK.dtype)


class HeadNorm(nn.RMSNorm):
    """Root-mean-square norm over the features of a head; statistics are fp32 whatever the dtype."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=NORM_EPS)

    def forward(self, x_NLHK: Tensor) -> Tensor:
        """Normalise the last axis. Under autocast the result is in the weight's dtype, and the rotation goes on from there."""
        return super().forward(x_NLHK.to(self.weight.dtype))


class SelfAttention(nn.Module):
    """Attention among the tokens of each sequence.

    `attention` is the kernel, and may be exchanged. `rotate_first` is the order of early v1.1: rotation, then norm.
    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False, rotate_first: bool = False) -> None:
        super().__init__()
        self.attention: Attention = attention
        self.heads = heads
        self.rotate_first = rotate_first
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = HeadNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_NLD: Tensor, rotation_L1K2: Tensor | None = None) -> Tensor:
        """Return (N, L, D); with a `rotation`, tokens know how far apart they are."""
        q, k, v = self.qkv(x_NLD).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        if rotation_L1K2 is not None and self.rotate_first:
            q, k = rotate(q, rotation_L1K2), rotate(k, rotation_L1K2)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation_L1K2 is not None and not self.rotate_first:
            q, k = rotate(q, rotation_L1K2), rotate(k, rotation_L1K2)
        return self.proj(self.attention(q.to(v.dtype), k.to(v.dtype), v).flatten(-2))


class SpatialAttention(SelfAttention):
    """Attention among the tokens of each frame."""

    def forward(self, x_BTSD: Tensor) -> Tensor:
        """Return (B, T, S, D)."""
        return super().forward(x_BTSD.flatten(0, 1)).view_as(x_BTSD)


class TemporalAttention(SelfAttention):
    """Attention among the frames at each place."""

    def forward(self, x_BTSD: Tensor, rotation_L1K2: Tensor | None = None) -> Tensor:
        """Return (B, T, S, D)."""
        x_BSTD = x_BTSD.transpose(1, 2)
        return super().forward(x_BSTD.flatten(0, 1), rotation_L1K2).view(x_BSTD.shape).transpose(1, 2)


class CrossAttention(nn.Module):
    """Attention from latent tokens to the text of their clip."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(dim, dim)
        self.kv_linear = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor | None = None) -> Tensor:
        """Return (B, N, D). Text tokens whose mask is false are as if they were not there."""
        q_BHNK = self.q_linear(x_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_BHLK, v_BHLK = self.kv_linear(text_BLD).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if text_mask_BL is None else text_mask_BL[:, None, None]
        out_BHNK = F.scaled_dot_product_attention(q_BHNK, k_BHLK, v_BHLK, attn_mask=mask)
        return self.proj(out_BHNK.transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    """Two linear layers with the tanh approximation of GELU between."""

    def __init__(self, dim: int, hidden: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim if out_dim is None else out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers to the last axis."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class FinalLayer(nn.Module):
    """Norm, shifted and scaled by a learned vector plus the condition, and the projection to the values of a patch."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_dim)
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)

    def forward(
        self,
        x_BTSD: Tensor,
        cond_B1D: Tensor,
        given_B1D: Tensor | None = None,
        x_mask_BT: Tensor | None = None,
    ) -> Tensor:
        """Return (B, T, S, out_dim). Frames whose mask is false follow `given_B1D`.

        Those are modulated a second time, on top of the first, as the published weights were trained: nothing reads them
        in sampling or in a loss with the mask, but a loss without it would.
        """
        x_BTSD = self._modulated(x_BTSD, cond_B1D)
        if given_B1D is not None and x_mask_BT is not None:
            x_BTSD = torch.where(x_mask_BT[:, :, None, None], x_BTSD, self._modulated(x_BTSD, given_B1D))
        return self.linear(x_BTSD)

    def _modulated(self, x_BTSD: Tensor, cond_B1D: Tensor) -> Tensor:
        return modulate(x_BTSD, *vectors(self.scale_shift_table, cond_B1D[:, :, None], x_BTSD.dtype))
