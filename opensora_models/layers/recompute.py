"""Computing blocks a second time in the backward pass instead of keeping their activations."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from opensora_models.layers.host_buffer import HostBuffer
from schemas.memory import MemoryConfig

Keep = Literal["nothing", "products"]

PRODUCTS = frozenset(
    {
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten.bmm.default,
        torch.ops.aten.convolution.default,
        torch.ops.aten._scaled_mm.default,
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)
"""Operations whose time grows with the model's width, or with the square of the tokens: nearly all of a step's time."""


class Recompute:
    """How a block is computed again: what of it is kept beside its inputs, and where the inputs wait."""

    def __init__(self, keep: Keep = "nothing", buffer: HostBuffer | None = None) -> None:
        self.keep: Keep = keep
        self.buffer = buffer

    @classmethod
    def of(cls, memory: MemoryConfig) -> "Recompute":
        """Return what a recipe asks for; all blocks of a model share one buffer."""
        size = memory.grad_ckpt_buffer_size
        return cls(memory.grad_ckpt_keep, HostBuffer(size) if size else None)

    def __call__(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """Return the block's result; its backward pass, if there is one, computes the block a second time.

        No block draws random numbers, so no generator's state is kept for the second pass.
        """
        if not torch.is_grad_enabled():
            return block(*inputs)
        more: dict[str, Any] = {"context_fn": _keep_products} if self.keep == "products" else {}
        with self._waiting():
            # Hooks that are set here see the inputs alone: inside, the checkpoint sets its own.
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **more)

    def _waiting(self) -> AbstractContextManager[object]:
        if self.buffer is None:
            return nullcontext()
        return torch.autograd.graph.saved_tensors_hooks(self.buffer.pack, self.buffer.unpack)


def recompute_stages(coder: nn.Module, how: Recompute) -> int:
    """Let every stage of an encoder or decoder (the members of its module lists) recompute its activations; return how many.

    What lies outside the stages keeps its activations: a gradient at the last convolution alone recomputes nothing.
    """
    stages = [stage for child in coder.children() if isinstance(child, nn.ModuleList) for stage in child]
    for stage in stages:
        stage.forward = partial(how, stage.forward)
    return len(stages)


def _keep_products() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    first, second = create_selective_checkpoint_contexts(_policy)
    return first, second


def _policy(context: object, operation: object, *_inputs: object, **_more: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
