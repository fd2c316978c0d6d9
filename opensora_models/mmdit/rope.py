"""Rotary position embedding over (time, height, width), in the two feature layouts of Flux and Open-Sora 2.0.

B batch, L tokens, H heads, D features of a head, K = D/2 rotated pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class InterleavedRope(NamedTuple):
    """Flux's layout: features (2i, 2i+1) of a head are a pair. `rotation` has cosine and sine of each pair."""

    rotation: Tensor  # (B, L, 1, K, 2)

    def rotate(self, x_BLHD: Tensor) -> Tensor:
        """Rotate queries or keys in fp32; the result has the dtype of `x_BLHD`."""
        pairs = x_BLHD.float().unflatten(-1, (-1, 2))
        if torch.compiler.is_compiling():  # compilers know no complex numbers, and fuse what is slow otherwise
            (x, y), (cos, sin) = pairs.unbind(-1), self.rotation.unbind(-1)
            turned = torch.stack([x * cos - y * sin, x * sin + y * cos], -1)
        else:
            turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(self.rotation))
        return turned.flatten(-2).to(x_BLHD.dtype)

    def after(self, skip: int) -> "InterleavedRope":
        """Return the tables of all tokens but the first `skip`."""
        return InterleavedRope(self.rotation[:, skip:])

    def of(self, rows: list[int]) -> "InterleavedRope":
        """Return the tables of some clips of the batch."""
        return InterleavedRope(self.rotation[rows])


class HalvesRope(NamedTuple):
    """Open-Sora 2.0's layout: features (i, i + K) of the whole head are a pair.

    Both tables span all D features; the sine is negated in the first half, so that a rotation is two products.
    """

    cos: Tensor  # (B, L, 1, D)
    sin: Tensor  # (B, L, 1, D)

    def rotate(self, x_BLHD: Tensor) -> Tensor:
        """Rotate queries or keys in fp32; the result has the dtype of `x_BLHD`."""
        x = x_BLHD.float()
        return torch.addcmul(x * self.cos, x.roll(x.shape[-1] // 2, -1), self.sin).to(x_BLHD.dtype)

    def after(self, skip: int) -> "HalvesRope":
        """Return the tables of all tokens but the first `skip`."""
        return HalvesRope(self.cos[:, skip:], self.sin[:, skip:])

    def of(self, rows: list[int]) -> "HalvesRope":
        """Return the tables of some clips of the batch."""
        return HalvesRope(self.cos[rows], self.sin[rows])


Rope = InterleavedRope | HalvesRope


def rope_angles(ids_BLA: Tensor, axes_dim: Sequence[int], theta: float, dtype: torch.dtype) -> Tensor:
    """Return the angles (B, L, K), in radians: axis a takes `axes_dim[a] / 2` of the K, in order.

    Pair j of an axis with d features turns by `position / theta^(2j/d)` (RoFormer, section 3.2.2).
    """
    angles = []
    for axis, dim in enumerate(axes_dim):
        exponent = torch.arange(0, dim, 2, dtype=dtype, device=ids_BLA.device) / dim
        angles.append(ids_BLA[..., axis, None].to(dtype) / theta**exponent)
    return torch.cat(angles, -1)


def build_rope(ids_BLA: Tensor, axes_dim: Sequence[int], theta: float, interleaved: bool) -> Rope:
    """Return the tables for tokens at `ids_BLA` (time, height, width), once for all blocks of a forward pass.

    The angles of the interleaved layout are computed in fp64, those of the other in fp32, as the published weights saw them.
    """
    angles_BLK = rope_angles(ids_BLA, axes_dim, theta, torch.float64 if interleaved else torch.float32)
    cos_BL1K, sin_BL1K = angles_BLK.cos().float()[:, :, None], angles_BLK.sin().float()[:, :, None]
    if interleaved:
        return InterleavedRope(torch.stack([cos_BL1K, sin_BL1K], -1))
    return HalvesRope(torch.cat([cos_BL1K, cos_BL1K], -1), torch.cat([-sin_BL1K, sin_BL1K], -1))
