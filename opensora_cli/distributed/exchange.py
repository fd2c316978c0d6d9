"""Sums and exchanges between processes that gradients pass through.

All processes of a group compute one and the same loss, and the gradients of their weights are averaged over those that
share out tokens and clips, and equal on those that share out features.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

Group = dist.ProcessGroup


class _SumGradients(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Swap(Function):
    @staticmethod
    def forward(ctx: Any, x_F: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _swap(x_F, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _swap(grads[0], ctx.received, ctx.sent, ctx.group), None, None, None


class _Join(Function):
    @staticmethod
    def forward(ctx: Any, x_BND: Tensor, sizes: list[int], group: Group) -> Tensor:
        ctx.sizes, ctx.rank = sizes, dist.get_rank(group)
        return join_tokens(x_BND, sizes, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        # Every process has this gradient of the whole, and averaging over the group will divide what it makes of it.
        return torch.split(grads[0], ctx.sizes, 1)[ctx.rank] * len(ctx.sizes), None, None


def sum_gradients(x: Tensor, group: Group) -> Tensor:
    """Return `x`; its gradient is the sum of the group's (the start of layers whose features are divided)."""
    result: Tensor = _SumGradients.apply(x, group)  # type: ignore[no-untyped-call]
    return result


def add_up(x: Tensor, group: Group) -> Tensor:
    """Return the sum of the group's `x`; its gradient passes as it is (the end of layers whose features are divided)."""
    result: Tensor = _Sum.apply(x, group)  # type: ignore[no-untyped-call]
    return result


def swap(x_F: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
    """Send a part of the flat `x_F` to each process of the group and return what they sent, in the group's order."""
    result: Tensor = _Swap.apply(x_F, sent, received, group)  # type: ignore[no-untyped-call]
    return result


def joined(x_BND: Tensor, sizes: list[int], group: Group) -> Tensor:
    """Return the tokens of all processes of the group in its order, `sizes` of each; every one takes them to one loss."""
    result: Tensor = _Join.apply(x_BND, sizes, group)  # type: ignore[no-untyped-call]
    return result


def join_tokens(x_BND: Tensor, sizes: list[int], group: Group) -> Tensor:
    """Return what `joined` does, without a gradient. Shorter parts are filled up for the way, as gathering needs."""
    padded = x_BND.new_zeros(x_BND.shape[0], max(sizes), *x_BND.shape[2:])
    padded[:, : x_BND.shape[1]] = x_BND
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:, :size] for part, size in zip(parts, sizes, strict=True)], 1)


def _swap(x_F: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
    out_F = x_F.new_empty(sum(received))
    dist.all_to_all_single(out_F, x_F.contiguous(), received, sent, group=group)
    return out_F
