"""Ring attention: queries stay, keys and values travel, and the shares of the softmax are put together as they come.

B batch, H heads, K features of a head, S tokens of this process, J tokens of the process whose keys are here, R ring.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from opensora_cli.distributed.exchange import Group


def ring_attention(q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, tokens: list[int], group: Group) -> Tensor:
    """Let each query see the keys of all processes of the group, which have so many `tokens` in its order."""
    heads_first = (x.transpose(1, 2).contiguous() for x in (q_BSHK, k_BSHK, v_BSHK))
    out_BHSK: Tensor = _Ring.apply(*heads_first, tokens, group)  # type: ignore[no-untyped-call]
    return out_BHSK.transpose(1, 2)


class _Ring(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, tokens: list[int], group: Group) -> Tensor:
        kv_2BHJK = torch.stack([k, v])
        out, lse_BHS = (
            torch.zeros_like(q, dtype=torch.float32),
            q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32),
        )
        for step in range(len(tokens)):
            travelling = _Passing(kv_2BHJK, _coming(tokens, step, group), group) if step + 1 < len(tokens) else None
            part, part_lse_BHS = _attention(q, kv_2BHJK[0], kv_2BHJK[1])
            total_BHS = torch.logaddexp(lse_BHS, part_lse_BHS)
            out = out * _weight(lse_BHS, total_BHS) + part * _weight(part_lse_BHS, total_BHS)
            lse_BHS = total_BHS
            if travelling:
                kv_2BHJK = travelling.arrived()
        result = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, lse_BHS)
        ctx.tokens, ctx.group = tokens, group
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, lse_BHS = ctx.saved_tensors
        grad = grads[0].contiguous()
        tokens, group = ctx.tokens, ctx.group
        kv_2BHJK = torch.stack([k, v])
        grad_kv_2BHJK = torch.zeros_like(kv_2BHJK, dtype=torch.float32)
        grad_q = torch.zeros_like(q, dtype=torch.float32)
        for step in range(len(tokens)):
            coming = _coming(tokens, step, group)
            travelling = _Passing(kv_2BHJK, coming, group)
            part_q, part_k, part_v = _attention_backward(grad, q, kv_2BHJK[0], kv_2BHJK[1], out, lse_BHS)
            grad_q += part_q
            grad_kv_2BHJK += torch.stack([part_k, part_v])
            kv_2BHJK = travelling.arrived()
            # The gradients of keys go round with them, and after the last step both are at home.
            grad_kv_2BHJK = _Passing(grad_kv_2BHJK, coming, group).arrived()
        return grad_q.to(q.dtype), *grad_kv_2BHJK.to(k.dtype), None, None


class _Passing:
    """Send a tensor to the next process of the ring while the one before sends its own, with `coming` tokens."""

    def __init__(self, x_2BHJK: Tensor, coming: int, group: Group) -> None:
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        self._sent = x_2BHJK.contiguous()
        self._received = x_2BHJK.new_empty(*x_2BHJK.shape[:3], coming, x_2BHJK.shape[4])
        ahead, behind = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))
        self._works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, self._sent, ahead, group),
                dist.P2POp(dist.irecv, self._received, behind, group),
            ]
        )

    def arrived(self) -> Tensor:
        """Wait, and return what came."""
        for work in self._works:
            work.wait()
        return self._received


def _coming(tokens: list[int], step: int, group: Group) -> int:
    """Return the tokens of the share that arrives in a step: that of the process `step` + 1 places back."""
    return tokens[(dist.get_rank(group) - step - 1) % len(tokens)]


def _weight(lse_BHS: Tensor, total_BHS: Tensor) -> Tensor:
    return (lse_BHS - total_BHS).exp()[..., None]


def _attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return attention to one share of the keys, and the logarithm of its softmax's denominator (B, H, S), in fp32."""
    if q.device.type == "cpu":
        return tuple(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v))[:2]
    if q.dtype != torch.float32:
        return tuple(torch.ops.aten._scaled_dot_product_flash_attention(q, k, v))[:2]
    scores = q @ k.mT * q.shape[-1] ** -0.5  # no fused kernel takes fp32 on a GPU
    lse_BHS = scores.logsumexp(-1)
    return (scores - lse_BHS[..., None]).exp() @ v, lse_BHS


def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse_BHS: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by one share, from the output and the denominator of the whole (FlashAttention-2, section 3.1)."""
    ops = torch.ops.aten
    if q.device.type == "cpu":
        return ops._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse_BHS, 0.0, False)  # type: ignore[no-any-return]
    if q.dtype != torch.float32:
        unused = torch.empty(0, dtype=torch.uint64, device=q.device)  # the state of a dropout that there is not
        lengths = (None, None, q.shape[2], k.shape[2])
        return ops._scaled_dot_product_flash_attention_backward(  # type: ignore[no-any-return]
            grad, q, k, v, out, lse_BHS, *lengths, 0.0, False, unused, unused
        )
    scale = q.shape[-1] ** -0.5
    weights = (q @ k.mT * scale - lse_BHS[..., None]).exp()
    slope = weights * (grad @ v.mT - (grad * out).sum(-1, keepdim=True)) * scale
    return slope @ k, slope.mT @ q, weights.mT @ grad
