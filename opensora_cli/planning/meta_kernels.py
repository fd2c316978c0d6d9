"""What a device's kernels do, done on the meta device: there PyTorch writes attention out, and norms, which takes long.

What operations save for a backward pass, and in which precision, is as on the device that is planned for; autocast, which
the meta device has not, is stood for here as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from opensora_cli.planning.denoised import Flops
from opensora_cli.planning.precision import STATE, Precision
from opensora_models.layers.recompute import PRODUCTS

FUSED_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Saves what those of a GPU save: queries, keys, values, output, and a number for each query."""
WITH_MATRICES = (F.linear, F.conv2d, F.conv3d)


class MetaKernels(TorchFunctionMode):
    """Exchanges functions for what stands for a device's kernels. Weights of matrices have the products' precision."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in WITH_MATRICES:
            return func(args[0].to(args[1].dtype), *args[1:], **kwargs)
        if func is F.gelu:
            return _fused(args[0], 0)
        if func is F.layer_norm:
            return _fused(args[0].float() if self.precision.norm == STATE else args[0], args[0].shape[:-1].numel() * 2)
        if func is F.group_norm:
            return _fused(args[0], 2 * len(args[0]) * args[1])
        if func is F.rms_norm and self.precision.device == "cuda":
            return _fused(args[0], args[0].shape[:-1].numel())
        return func(*args, **kwargs)


class Work(TorchDispatchMode):
    """Counts the FLOPs of matrix products and attention, and the bytes of their results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = Flops(0, 0)
        self.results = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in PRODUCTS:
            self._see(func, args, kwargs, result)
        return result

    def _see(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        products, attention = self.flops.products, self.flops.attention
        if func._overloadpacket is FUSED_ATTENTION:
            queries, keys = args[:2]
            attention += 4 * queries.numel() * keys.shape[-2]
        else:
            products += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        self.flops = Flops(products, attention)
        self.results += sum(part.nbytes for part in (result if isinstance(result, tuple) else (result,)))


def _attention(queries: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    mask = None if attn_mask is None else attn_mask.to(queries.dtype)
    out: Tensor = FUSED_ATTENTION(queries, keys, values, attn_mask=mask)[0]
    return out


def _fused(x: Tensor, statistics: int) -> Any:
    return _Fused.apply(x, statistics)  # type: ignore[no-untyped-call]


class _Fused(torch.autograd.Function):
    """An operation in one kernel that keeps its input, and a norm some fp32 numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, statistics: int) -> Tensor:
        ctx.save_for_backward(x, x.new_empty(statistics, dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.empty_like(gradients[0]), None
