"""Latents as tokens: one token for each patch of a latent frame, frames outermost.

Legend: B batch, C latent channels, T latent frames, H W latent pixels, N image tokens, D token features, L text tokens.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor


def pack(latent_BCTHW: Tensor, patch_size: int) -> Tensor:
    """Cut a latent into tokens (B, N, D) with N = T * H/p * W/p and D = C * p * p.

    Raises ValueError when a side is no multiple of the patch.
    """
    height, width = latent_BCTHW.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(f"a latent of {height} x {width} cannot be cut into patches of {patch_size} x {patch_size}")
    return rearrange(
        latent_BCTHW, "b c t (h ph) (w pw) -> b (t h w) (c ph pw)", ph=patch_size, pw=patch_size
    ).contiguous()


def unpack(tokens_BND: Tensor, frames: int, height: int, width: int, patch_size: int) -> Tensor:
    """Undo `pack` for a latent of `frames` x `height` x `width` (latent pixels)."""
    return rearrange(
        tokens_BND,
        "b (t h w) (c ph pw) -> b c t (h ph) (w pw)",
        t=frames,
        h=height // patch_size,
        w=width // patch_size,
        ph=patch_size,
        pw=patch_size,
    ).contiguous()


def image_ids(
    frames: int, height: int, width: int, patch_size: int, *, batch: int, device: torch.device | str | None = None
) -> Tensor:
    """Return the (frame, row, column) of every token, (B, N, 3) float32, for a latent of height x width pixels."""
    axes = [
        torch.arange(size, device=device, dtype=torch.float32)
        for size in (frames, height // patch_size, width // patch_size)
    ]
    grid_THW3 = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return repeat(grid_THW3, "t h w ids -> b (t h w) ids", b=batch)


def text_ids(length: int, *, batch: int, device: torch.device | str | None = None) -> Tensor:
    """Return the ids of text tokens, (B, L, 3) float32: all zero, for text has no place in the clip."""
    return torch.zeros(batch, length, 3, device=device)
