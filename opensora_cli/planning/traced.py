"""Memory and work of an autoencoder by running its own code on fake tensors, which have shapes but no numbers.

What is counted is what the code allocates, so nothing here follows the blocks by hand. Workspaces inside an operation are
not seen, and autocast is stood for by a module that is in the lower precision throughout.
"""

import weakref
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from opensora_cli.planning.coded import Coding, Extent
from opensora_models.build import build_autoencoder
from schemas.autoencoder import AutoencoderConfig


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, until it is freed: `now`, and `peak`, the most so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class SavedStorages:
    """Counts what autograd saves while it is on, each storage once, weights left out."""

    def __init__(self, module: nn.Module) -> None:
        self._weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        self._seen: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is saved."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._seen[storage._cdata] = storage
        return tensor

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(storage.nbytes() for storage in self._seen.values())


@lru_cache(maxsize=256)
def traced_coding(
    config: AutoencoderConfig, matrix: int, batch: int, extent: Extent, direction: Literal["encode", "decode"]
) -> Coding:
    """Return the cost of a batch of clips of `extent` (pixels either way), `matrix` bytes a number."""
    dtype = torch.float32 if matrix == 4 else torch.bfloat16
    with FakeTensorMode():
        module = build_autoencoder(config)
        _cast(module, dtype)
        sizes = (3, *extent) if direction == "encode" else (module.latent_channels, *module.latent_size(*extent))
        clip_BCTHW = torch.empty(batch, *sizes, dtype=dtype)
        work = module.encode if direction == "encode" else module.decode
        with FlopCounterMode(display=False) as flops, LiveStorages() as live, torch.no_grad():
            work(clip_BCTHW)
        saved = SavedStorages(module)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            work(clip_BCTHW)
    return Coding(live.peak, saved.total, flops.get_total_flops())


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Do what `module.to(dtype)` refuses to do for fake tensors."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            part.register_parameter(name, nn.Parameter(weight.detach().to(dtype)))
