"""Attention over all tokens, by the kernel of one's choice; all attention of the MMDiT goes through one of these.

B batch, S tokens, H heads, K features of a head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from schemas.errors import OsoraError

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys, values, each (B, S, H, K), to what each query sees, of the queries' shape; keys have no order."""
AttentionName = Literal["auto", "sdpa", "flash", "flex"]

FLASH_PACKAGES = ("flash_attn_interface", "flash_attn")
"""Modules of FlashAttention 3 (Hopper alone) and 2; the first that is installed counts."""
HOPPER = (9, 0)


def attention(q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
    """Let each query see every token, by PyTorch's fused kernels."""
    out_BHSK = F.scaled_dot_product_attention(q_BSHK.transpose(1, 2), k_BSHK.transpose(1, 2), v_BSHK.transpose(1, 2))
    return out_BHSK.transpose(1, 2)


def pick_attention(name: AttentionName) -> Attention:
    """Return the attention of a recipe's `sampling.attention`. Raises OsoraError where its package is not installed."""
    match name:
        case "auto" | "sdpa":
            return attention
        case "flash":
            return _flash()
        case "flex":
            return flex(torch.compile(flex_attention))  # not compiled, it would write all scores out
        case _:
            assert_never(name)


def flex(kernel: Callable[..., Tensor]) -> Attention:
    """Return the attention by `kernel`, which is `flex_attention` or a compiled one."""

    def attend(q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        return kernel(q_BSHK.transpose(1, 2), k_BSHK.transpose(1, 2), v_BSHK.transpose(1, 2)).transpose(1, 2)

    return attend


@contextmanager
def preferred_kernels(name: AttentionName, device: torch.device) -> Iterator[None]:
    """Let "auto" try cuDNN's kernel first from Hopper on, where it is the fastest; otherwise PyTorch's order holds.

    Blocks are compiled for the kernel that they meet at first, so this belongs around every forward pass.
    """
    if name != "auto" or device.type != "cuda" or torch.cuda.get_device_capability(device) < HOPPER:
        yield
        return
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        yield


def _flash() -> Attention:
    found = next((module for module in FLASH_PACKAGES if find_spec(module) is not None), None)
    if found is None:
        raise OsoraError(
            'sampling.attention = "flash": flash-attn is not installed. `pip install "osora[flash]"` on a machine with '
            "CUDA, or use --set sampling.attention=auto."
        )
    kernel = import_module(found).flash_attn_func

    def attend(q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        out = kernel(q_BSHK, k_BSHK, v_BSHK)
        return out[0] if isinstance(out, tuple) else out  # early versions of FlashAttention 3 also return the row sums

    return attend
