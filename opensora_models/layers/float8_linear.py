"""Linear layers whose weights are stored in 8-bit floats and multiplied in the precision of their inputs.

O output features, I input features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class Float8Linear(nn.Module):
    """A frozen linear layer in half the memory of bf16; each use writes its weight out in the input's dtype for a moment."""

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        weight_OI = torch.empty(out_features, in_features, dtype=FLOAT8)
        self.weight = nn.Parameter(weight_OI, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(out_features, 1), requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Multiply as `nn.Linear` does."""
        weight_OI = self.weight.to(x.dtype) * self.weight_scale.to(x.dtype)
        return F.linear(x, weight_OI, self.bias)

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
            if isinstance(layer, nn.Linear):
                with layer.weight.device:
                    replacement = Float8Linear(layer.in_features, layer.out_features, layer.bias)
                if not layer.weight.is_meta:
                    replacement.store(layer.weight)
                setattr(parent, name, replacement)
