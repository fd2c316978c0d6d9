"""Tensor parallelism: each process of a group has a share of the heads and of the MLPs' features (Megatron-LM, section 3)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_cli.distributed.exchange import Group, add_up, sum_gradients
from opensora_cli.distributed.stage import no_plan
from opensora_models.mmdit.blocks import NORM_EPS, RMSNorm
from opensora_models.mmdit.model import MMDiT
from opensora_models.mmdit.parallel import Divided, divide_heads, divided_layers


class Slice:
    """The share of one weight: along `axis`, the `rank`-th of `size` equal pieces of each of `parts`, one after the other."""

    def __init__(self, axis: int, parts: tuple[int, ...], rank: int, size: int) -> None:
        self.axis, self.parts, self.rank, self.size = axis, parts, rank, size

    def of(self, whole: Tensor) -> Tensor:
        """Return the share of a whole weight."""
        pieces = [
            part.chunk(self.size, self.axis)[self.rank] for part in torch.split(whole, list(self.parts), self.axis)
        ]
        return torch.cat(pieces, self.axis)

    def put_together(self, shares: list[Tensor]) -> Tensor:
        """Return the whole weight from the shares of all ranks, in their order."""
        widths = [part // self.size for part in self.parts]
        pieces = zip(*(torch.split(share, widths, self.axis) for share in shares), strict=True)
        return torch.cat([torch.cat(part, self.axis) for part in pieces], self.axis)


class MakesShare(nn.Module):
    """A linear layer that makes a share of the features from whole ones."""

    def __init__(self, weight: Tensor, bias: Tensor | None, group: Group) -> None:
        super().__init__()
        self.weight, self.bias, self.group = weight, bias, group

    def forward(self, x: Tensor) -> Tensor:
        """Return this process's features; the gradient of the input is what all processes' features add up to."""
        return F.linear(sum_gradients(x, self.group), self.weight, self.bias)


class ReadsShare(nn.Module):
    """A linear layer that reads a share of the features and makes whole ones: its results are added over the processes."""

    def __init__(self, weight: Tensor, bias: Tensor | None, group: Group) -> None:
        super().__init__()
        self.weight, self.bias, self.group = weight, bias, group

    def forward(self, x: Tensor) -> Tensor:
        """Return the whole result."""
        y = add_up(F.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class SharedNorm(nn.Module):
    """A norm that all heads share, and of which each process sees the gradient of its own heads."""

    def __init__(self, scale: Tensor, eps: float, group: Group) -> None:
        super().__init__()
        self.scale, self.eps, self.group = scale, eps, group

    def forward(self, x_BSHK: Tensor) -> Tensor:
        """Normalise as `RMSNorm` does."""
        scale = sum_gradients(self.scale, self.group)
        return F.rms_norm(x_BSHK.to(scale.dtype), scale.shape, scale, self.eps)


def share_features(model: nn.Module, group: Group) -> dict[str, Slice]:
    """Divide a model's layers over a group; return, for each parameter that is now a share, of what it is one.

    Raises OsoraError for a family without a plan for it.
    """
    if not isinstance(model, MMDiT):
        raise no_plan(model, "features", "tp_size = 1")
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    slices: dict[str, Slice] = {}
    for layer in divided_layers(model):
        linear = model.get_submodule(layer.path)
        assert isinstance(linear, nn.Linear)
        for name, part in _slices(layer, linear, rank, size).items():
            slices[f"{layer.path}.{name}"] = part
            setattr(linear, name, nn.Parameter(part.of(getattr(linear, name).detach())))
        kind = MakesShare if layer.side == "out" else ReadsShare
        model.set_submodule(layer.path, kind(linear.weight, linear.bias, group))
    for path in divide_heads(model, size):
        norm = model.get_submodule(path)
        assert isinstance(norm, RMSNorm)
        model.set_submodule(path, SharedNorm(norm.scale, NORM_EPS, group))
    return slices


def _slices(layer: Divided, linear: nn.Linear, rank: int, size: int) -> dict[str, Slice]:
    if layer.side == "in":
        return {"weight": Slice(1, layer.parts, rank, size)}
    names = ("weight", "bias") if linear.bias is not None else ("weight",)
    return {name: Slice(0, layer.parts, rank, size) for name in names}
