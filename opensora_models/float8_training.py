"""Linear layers whose products are computed in 8-bit floats, forward and backward, for training.

Every tensor is scaled by its own largest value, anew at every use (dynamic scaling, Micikevicius et al. 2022, "FP8 formats
for deep learning"): inputs and weights as e4m3, gradients as e5m2. Weights stay fp32, sums are fp32, results bf16.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.mmdit.blocks import Modulation
from opensora_models.mmdit.model import MMDiT
from schemas.errors import OsoraError

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""The sizes of an 8-bit product are multiples of this."""
CAPABILITY = (8, 9)
"""The first GPUs with 8-bit products: Ada and Hopper."""


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a tensor in 8 bits and the fp32 scale to multiply it with."""
    largest = torch.finfo(dtype).max
    scale = (x.detach().abs().amax().float() / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale


def multiply(a_MK: Tensor, a_scale: Tensor, b_KN: Tensor, b_scale: Tensor, dtype: torch.dtype, emulate: bool) -> Tensor:
    """Return the product of two scaled tensors; `b_KN` lies in memory by columns.

    Emulated, the same rounded numbers are multiplied in fp32: what an 8-bit product with fp32 sums gives.
    """
    if not emulate:
        return torch._scaled_mm(a_MK, b_KN, scale_a=a_scale, scale_b=b_scale, out_dtype=dtype)
    with torch.autocast(a_MK.device.type, enabled=False):
        return ((a_MK.float() @ b_KN.float()) * (a_scale * b_scale)).to(dtype)


class _Product(torch.autograd.Function):
    """x W^T, N rows of I features to O."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, dtype: torch.dtype, emulate: bool) -> Tensor:
        x8_NI, x_scale = quantise(x_NI, E4M3)
        weight8_OI, weight_scale = quantise(weight_OI, E4M3)
        ctx.save_for_backward(x8_NI, x_scale, weight8_OI, weight_scale)
        ctx.dtypes, ctx.emulate = (dtype, x_NI.dtype, weight_OI.dtype), emulate
        return multiply(x8_NI, x_scale, weight8_OI.t(), weight_scale, dtype, emulate)

    @staticmethod
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x8_NI, x_scale, weight8_OI, weight_scale = ctx.saved_tensors
        dtype, x_dtype, weight_dtype = ctx.dtypes
        gradient8_NO, scale = quantise(gradient_NO, E5M2)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            product = multiply(gradient8_NO, scale, _by_columns(weight8_OI), weight_scale, dtype, ctx.emulate)
            of_x = product.to(x_dtype)
        if ctx.needs_input_grad[1]:
            by_feature_ON = gradient8_NO.t().contiguous()
            product = multiply(by_feature_ON, scale, _by_columns(x8_NI), x_scale, dtype, ctx.emulate)
            of_weight = product.to(weight_dtype)
        return of_x, of_weight, None, None


class TrainedFloat8Linear(nn.Linear):
    """A linear layer with 8-bit products; parameters are those of the layer that it takes the place of."""

    emulate = False

    @classmethod
    def of(cls, linear: nn.Linear, emulate: bool) -> "TrainedFloat8Linear":
        """Return a layer with the same parameters."""
        with torch.device("meta"):
            made = cls(linear.in_features, linear.out_features, linear.bias is not None)
        made.weight, made.bias, made.emulate = linear.weight, linear.bias, emulate
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return the result in autocast's dtype; without autocast in that of `x`."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        x_NI = x.flatten(0, -2)
        missing = -x_NI.shape[0] % MULTIPLE
        padded_NI = F.pad(x_NI, (0, 0, 0, missing)) if missing else x_NI
        y_NO = _Product.apply(padded_NI, self.weight, dtype, self.emulate)[: x_NI.shape[0]]
        y = y_NO.unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias.to(dtype)


def train_in_float8(model: nn.Module, device: torch.device, *, emulate: bool = False) -> int:
    """Let the blocks' linear layers compute in 8 bits and return how many did; parameters keep their names.

    The condition's layers stay as they are, since they have one row a clip, and so do sizes that are no multiple of 16.
    Raises OsoraError where the device has no 8-bit products, unless they are emulated (with the same rounding, slowly).
    """
    assert isinstance(model, MMDiT)
    if not emulate and (device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        raise OsoraError(
            f"memory.fp8_linear = true: {name} has no 8-bit products, which take a GPU of compute capability 8.9 or more "
            "(Ada, Hopper, Blackwell). Run there, or set memory.fp8_linear = false."
        )
    parents = [part for block in model.units for part in block.modules() if not isinstance(part, Modulation)]
    found = [(parent, name, child) for parent in parents for name, child in parent.named_children() if _suits(child)]
    for parent, name, linear in found:
        setattr(parent, name, TrainedFloat8Linear.of(linear, emulate))
    return len(found)


def _suits(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and not layer.in_features % MULTIPLE and not layer.out_features % MULTIPLE


def _by_columns(x: Tensor) -> Tensor:
    """Return the same matrix, laid out by columns."""
    return x.t().contiguous().t()
