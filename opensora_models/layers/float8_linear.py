"""Linear layers whose weights are stored in 8-bit floats and multiplied in the precision of their inputs.

O output features, I input features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max  # 448


def quantise(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight in float8_e4m3fn and a scale per output row, (O, 1) fp32; their product is near the weight.

    Scales are powers of two: multiplying by one is exact in every floating-point type, so nothing but the rounding to
    4 significant bits (at most 1/16 of a value that is not tiny beside its row) is lost.
    """
    largest_O1 = weight_OI.float().abs().amax(1, keepdim=True)
    exponent_O1 = (largest_O1 / LARGEST).log2().ceil().clamp(min=-100)  # a row of zeros keeps a scale above 0
    scale_O1 = torch.exp2(exponent_O1)
    return (weight_OI.float() / scale_O1).clamp(-LARGEST, LARGEST).to(FLOAT8), scale_O1


class _Product(torch.autograd.Function):
    """`x` times a weight that is written out for the moment, in both directions: autograd would keep it from one to the other."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight_OI: Tensor, scale_O1: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_OI, scale_O1)
        return F.linear(x, _written_out(weight_OI, scale_O1, x.dtype), bias_O)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient @ _written_out(*ctx.saved_tensors, gradient.dtype), None, None, None


def _written_out(weight_OI: Tensor, scale_O1: Tensor, dtype: torch.dtype) -> Tensor:
    return weight_OI.to(dtype) * scale_O1.to(dtype)


class Float8Linear(nn.Linear):
    """A frozen linear layer in half the memory of bf16; each use writes its weight out in the input's dtype for a moment."""

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None) -> None:
        super().__init__(in_features, out_features, bias=False, device="meta")
        weight_OI = torch.empty(out_features, in_features, dtype=FLOAT8)
        self.weight = nn.Parameter(weight_OI, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(out_features, 1), requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Multiply as `nn.Linear` does."""
        kind = x.device.type
        x = x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self.weight, self.weight_scale, bias)
        return F.linear(x, _written_out(self.weight, self.weight_scale, x.dtype), bias)

    @torch.no_grad()
    def store(self, weight_OI: Tensor) -> None:
        """Take over a weight in any precision; it is quantised on the device it is on."""
        quantised_OI, scale_O1 = quantise(weight_OI)
        self.weight.copy_(quantised_OI)
        self.weight_scale.copy_(scale_O1)


def use_float8(module: nn.Module) -> None:
    """Replace every linear layer below `module` by one with 8-bit weights, one after the other; meta ones without values."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and not isinstance(layer, Float8Linear):
                with layer.weight.device:
                    replacement = Float8Linear(layer.in_features, layer.out_features, layer.bias)
                if not layer.weight.is_meta:
                    replacement.store(layer.weight)
                setattr(parent, name, replacement)
