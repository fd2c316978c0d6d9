"""The blocks of the MMDiT. Attribute names are the keys of the published checkpoints.

B batch, N image tokens, L text tokens, S = L + N joined tokens (text first), D width, H heads, K features of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.mmdit.attention import Attention, attention
from opensora_models.mmdit.rope import Rope

NORM_EPS = 1e-6
TIMESTEP_FEATURES = 256


def timestep_embedding(t_B: Tensor, dim: int = TIMESTEP_FEATURES, max_period: float = 10_000.0) -> Tensor:
    """Return sinusoidal features (B, dim) of 1000 t, cosines first, in fp32 (DDPM's, with t in [0, 1])."""
    steps = torch.arange(dim // 2, dtype=torch.float32, device=t_B.device)
    # Angles reach 1000 rad, so the last bit of a frequency shows: round exp once, and machines agree on it.
    frequencies = torch.exp((-math.log(max_period) * steps / (dim // 2)).double()).float()
    angles_BF = (1000.0 * t_B.float())[:, None] * frequencies
    return torch.cat([angles_BF.cos(), angles_BF.sin()], -1)


def modulate(x_BSD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """Return the parameter-free layer norm of `x_BSD`, scaled and shifted by the condition (DiT, section 3.2)."""
    normed_BSD = F.layer_norm(x_BSD, x_BSD.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(shift_B1D, normed_BSD, 1 + scale_B1D)


def attend(q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, rope: Rope, attention: Attention = attention) -> Tensor:
    """Rotate queries and keys and let each query see every token; returns (B, queries, H*K).

    Where there are fewer queries than keys, they are those of the last tokens.
    """
    q = rope.after(k_BSHK.shape[1] - q_BSHK.shape[1]).rotate(q_BSHK).to(v_BSHK.dtype)
    k = rope.rotate(k_BSHK).to(v_BSHK.dtype)
    return attention(q, k, v_BSHK).flatten(2)


class MLPEmbedder(nn.Module):
    """Two linear layers with SiLU between: a vector's way to the model's width."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_dim)
        self.out_layer = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Embed a vector."""
        return self.out_layer(F.silu(self.in_layer(x_BD)))


class RMSNorm(nn.Module):
    """Root-mean-square norm over the features of a head; statistics are fp32 whatever the dtype."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x_BSHK: Tensor) -> Tensor:
        """Normalise the last axis. Under autocast the result is in the scale's dtype, and the rotation goes on from there."""
        return F.rms_norm(x_BSHK.to(self.scale.dtype), self.scale.shape, self.scale, NORM_EPS)


class QKNorm(nn.Module):
    """Separate norms for queries and keys."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)

    def forward(self, q_BSHK: Tensor, k_BSHK: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise queries and keys."""
        return self.query_norm(q_BSHK), self.key_norm(k_BSHK)


class Modulation(nn.Module):
    """Shift, scale and gate of one or two sublayers, from the activated condition vector."""

    def __init__(self, dim: int, sublayers: int) -> None:
        super().__init__()
        self.chunks = 3 * sublayers
        self.lin = nn.Linear(dim, self.chunks * dim)

    def forward(self, act_BD: Tensor) -> tuple[Tensor, ...]:
        """Return shift, scale, gate (twice for two sublayers), each (B, 1, D)."""
        return self.lin(act_BD)[:, None].chunk(self.chunks, -1)


class SelfAttention(nn.Module):
    """The projections of one stream of a double block; the attention itself spans both streams."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, fused_qkv: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fused_qkv = fused_qkv
        if fused_qkv:
            self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        else:
            self.q_proj = nn.Linear(dim, dim, bias=qkv_bias)
            self.k_proj = nn.Linear(dim, dim, bias=qkv_bias)
            self.v_proj = nn.Linear(dim, dim, bias=qkv_bias)
        self.norm = QKNorm(dim // num_heads)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return normalised queries, normalised keys, and values, each (B, S, H, K)."""
        if self.fused_qkv:
            projected = self.qkv(x_BSD).chunk(3, -1)
        else:
            projected = (self.q_proj(x_BSD), self.k_proj(x_BSD), self.v_proj(x_BSD))
        q, k, v = (features.unflatten(-1, (self.num_heads, -1)) for features in projected)
        return *self.norm(q, k), v


class DoubleStreamBlock(nn.Module):
    """Text and image keep their own weights and meet in the attention (SD3, section 4)."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, qkv_bias: bool, fused_qkv: bool) -> None:
        super().__init__()
        self.attention: Attention = attention
        self.img_mod = Modulation(dim, 2)
        self.img_attn = SelfAttention(dim, num_heads, qkv_bias, fused_qkv)
        self.img_mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(approximate="tanh"), nn.Linear(mlp_dim, dim))
        self.txt_mod = Modulation(dim, 2)
        self.txt_attn = SelfAttention(dim, num_heads, qkv_bias, fused_qkv)
        self.txt_mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(approximate="tanh"), nn.Linear(mlp_dim, dim))

    def forward(self, img_BND: Tensor, txt_BLD: Tensor, act_BD: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        """Return image and text tokens after attention over both and an MLP each; `act_BD` is SiLU of the condition."""
        img_shift, img_scale, img_gate, img_mlp_shift, img_mlp_scale, img_mlp_gate = self.img_mod(act_BD)
        txt_shift, txt_scale, txt_gate, txt_mlp_shift, txt_mlp_scale, txt_mlp_gate = self.txt_mod(act_BD)

        img_q, img_k, img_v = self.img_attn.heads(modulate(img_BND, img_shift, img_scale))
        txt_q, txt_k, txt_v = self.txt_attn.heads(modulate(txt_BLD, txt_shift, txt_scale))
        q, k, v = torch.cat([txt_q, img_q], 1), torch.cat([txt_k, img_k], 1), torch.cat([txt_v, img_v], 1)
        txt_attn, img_attn = attend(q, k, v, rope, self.attention).split([txt_BLD.shape[1], img_BND.shape[1]], 1)

        img_BND = torch.addcmul(img_BND, img_gate, self.img_attn.proj(img_attn))
        img_mlp = self.img_mlp(modulate(img_BND, img_mlp_shift, img_mlp_scale))
        txt_BLD = torch.addcmul(txt_BLD, txt_gate, self.txt_attn.proj(txt_attn))
        txt_mlp = self.txt_mlp(modulate(txt_BLD, txt_mlp_shift, txt_mlp_scale))
        return torch.addcmul(img_BND, img_mlp_gate, img_mlp), torch.addcmul(txt_BLD, txt_mlp_gate, txt_mlp)


class SingleStreamBlock(nn.Module):
    """Attention and MLP side by side over the joined tokens (ViT-22B, section 2)."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, fused_qkv: bool) -> None:
        super().__init__()
        self.attention: Attention = attention
        self.num_heads = num_heads
        self.fused_qkv = fused_qkv
        self.widths = [dim, dim, dim, mlp_dim] if fused_qkv else [dim, mlp_dim]
        if fused_qkv:
            self.linear1 = nn.Linear(dim, 3 * dim + mlp_dim)
        else:
            self.q_proj = nn.Linear(dim, dim)
            self.k_proj = nn.Linear(dim, dim)
            self.v_mlp = nn.Linear(dim, dim + mlp_dim)
        self.linear2 = nn.Linear(dim + mlp_dim, dim)
        self.norm = QKNorm(dim // num_heads)
        self.modulation = Modulation(dim, 1)

    def forward(self, x_BSD: Tensor, act_BD: Tensor, rope: Rope, skip: int = 0) -> Tensor:
        """Return the joined tokens after the block, without the first `skip`; `act_BD` is SiLU of the condition.

        Skipped tokens are attended to like the others. The last block skips the text, whose tokens nothing reads.
        """
        shift, scale, gate = self.modulation(act_BD)
        normed_BSD = modulate(x_BSD, shift, scale)
        if self.fused_qkv:
            q, k, v, mlp = self.linear1(normed_BSD).split(self.widths, -1)
            q = q[:, skip:]
        else:
            v, mlp = self.v_mlp(normed_BSD).split(self.widths, -1)
            q, k = self.q_proj(normed_BSD[:, skip:]), self.k_proj(normed_BSD)
        q, k, v = (features.unflatten(-1, (self.num_heads, -1)) for features in (q, k, v))
        attn_BSD = attend(*self.norm(q, k), v, rope, self.attention)
        out_BSD = self.linear2(torch.cat([attn_BSD, F.gelu(mlp[:, skip:], approximate="tanh")], -1))
        return torch.addcmul(x_BSD[:, skip:], gate, out_BSD)


class LastLayer(nn.Module):
    """Modulated norm and the projection to the features of a token."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x_BND: Tensor, vec_BD: Tensor) -> Tensor:
        """Return the velocity of each image token."""
        shift, scale = self.adaLN_modulation(vec_BD)[:, None].chunk(2, -1)
        return self.linear(modulate(x_BND, shift, scale))
