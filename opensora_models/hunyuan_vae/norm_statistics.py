"""Group norms over clips that are never whole in memory: statistics are gathered part by part."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALL_BUT_CHANNELS = (2, 3, 4)


class Statistics:
    """Mean and squared deviation of every channel over the parts seen so far, in fp64 (Chan et al. 1983, eq. 2.1)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean_BC: Tensor | None = None
        self.squares_BC: Tensor | None = None

    def add(self, part_BCTHW: Tensor) -> None:
        """Take in one more part of the clip."""
        part_BCTHW = part_BCTHW.float()
        count = part_BCTHW[0, 0].numel()
        mean_BC = part_BCTHW.sum(ALL_BUT_CHANNELS) / count
        # Around the mean of the part: squares of large values would leave nothing of small deviations.
        squares_BC = (part_BCTHW - mean_BC[..., None, None, None]).square_().sum(ALL_BUT_CHANNELS).double()
        mean_BC = mean_BC.double()
        if self.mean_BC is None or self.squares_BC is None:
            self.count, self.mean_BC, self.squares_BC = count, mean_BC, squares_BC
            return
        total = self.count + count
        apart_BC = mean_BC - self.mean_BC
        self.mean_BC = self.mean_BC + apart_BC * (count / total)
        self.squares_BC = self.squares_BC + squares_BC + apart_BC.square() * (self.count * count / total)
        self.count = total

    def affine(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Return scale and shift (B, C, 1, 1, 1) with which a channel leaves the norm."""
        assert self.mean_BC is not None and self.squares_BC is not None
        channels = self.mean_BC.unflatten(1, (norm.num_groups, -1))
        mean_BG1 = channels.mean(2, keepdim=True)
        within = self.squares_BC.unflatten(1, (norm.num_groups, -1)).mean(2, keepdim=True) / self.count
        variance_BG1 = within + (channels - mean_BG1).square().mean(2, keepdim=True)
        inverse = torch.rsqrt(variance_BG1 + norm.eps).expand_as(channels).flatten(1)
        scale_BC = inverse * norm.weight.double()
        shift_BC = norm.bias.double() - mean_BG1.expand_as(channels).flatten(1) * scale_BC
        return scale_BC.float()[..., None, None, None], shift_BC.float()[..., None, None, None]


def silu_of_affine(part_BCTHW: Tensor, affine: tuple[Tensor, Tensor], out_BCTHW: Tensor) -> None:
    """Write silu(part * scale + shift) to `out`, computed in fp32."""
    scale, shift = affine
    if part_BCTHW.dtype == torch.float32 == out_BCTHW.dtype:
        torch.addcmul(shift, part_BCTHW, scale, out=out_BCTHW)
        F.silu(out_BCTHW, inplace=True)
    else:
        out_BCTHW.copy_(F.silu(torch.addcmul(shift, part_BCTHW.float(), scale), inplace=True))
