"""Latents to tokens and back, for patches of (time, height, width) latent pixels.

T, R, C frames, rows and columns of patches; S = R * C tokens of a frame.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Patch = tuple[int, int, int]
Tokens = Callable[[Tensor], Tensor]
"""What stands around a denoiser's blocks: from tokens (B, T, S, D) to those of this process, and back."""


def same(x_BTSD: Tensor) -> Tensor:
    """Return the tokens as they are."""
    return x_BTSD


def patch_grid(size: Sequence[int], patch: Patch) -> tuple[int, int, int]:
    """Return (T, R, C) of a latent of `size` (frames, height, width); what does not fill a patch counts as one."""
    frames, rows, columns = (-(-length // step) for length, step in zip(size, patch, strict=True))
    return frames, rows, columns


class PatchEmbed(nn.Module):
    """A linear map of every patch. The weight has the shape of a convolution, as in the published checkpoints."""

    def __init__(self, in_channels: int, hidden: int, patch: Patch) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(in_channels, hidden, patch, patch)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the tokens (B, T, S, hidden); zeros at the end fill the last patch of an axis."""
        grid = patch_grid(x_BCTHW.shape[2:], self.patch)
        missing = [n * step - size for n, step, size in zip(grid, self.patch, x_BCTHW.shape[2:], strict=True)]
        if any(missing):
            x_BCTHW = F.pad(x_BCTHW, (0, missing[2], 0, missing[1], 0, missing[0]))
        # One product of matrices: convolutions whose patches do not overlap have no fast kernel in every precision.
        patches = rearrange(
            x_BCTHW, "b c (t p) (r q) (s w) -> b t (r s) (c p q w)", p=self.patch[0], q=self.patch[1], w=self.patch[2]
        )
        return F.linear(patches.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


def unpatchify(tokens_BTSV: Tensor, patch: Patch, size: Sequence[int]) -> Tensor:
    """Return the latent (B, C, *size) of tokens whose values are ordered (time, height, width, channel), cropped to `size`."""
    _, rows, columns = patch_grid(size, patch)
    x_BCTHW = rearrange(
        tokens_BTSV,
        "b t (r s) (p q w c) -> b c (t p) (r q) (s w)",
        r=rows,
        s=columns,
        p=patch[0],
        q=patch[1],
        w=patch[2],
    )
    return x_BCTHW[:, :, : size[0], : size[1], : size[2]]
