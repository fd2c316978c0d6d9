"""Sums of a residual and its shortcut."""

import torch
from torch import Tensor


def added(residual: Tensor, shortcut: Tensor) -> Tensor:
    """Return the sum, where nothing is trained in the memory of the residual.

    With gradients it may not be changed: recomputing that keeps products keeps the convolution's result.
    """
    return residual + shortcut if torch.is_grad_enabled() else residual.add_(shortcut)
