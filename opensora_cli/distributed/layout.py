"""Where each weight of a trained module, its gradient and its optimizer's state are, over the processes of a job.

Ranks count tensor parallel neighbours first, then sequence parallel ones, then data parallel ones. Weights that differ by
tensor parallelism are plain tensors (`Slice`); those that are shared out among equal processes are DTensors (FSDP2).
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from opensora_cli.distributed.exchange import Group
from opensora_cli.distributed.process import Process
from opensora_cli.distributed.sequence import share_tokens
from opensora_cli.distributed.stage import no_plan, sharing_stage
from opensora_cli.distributed.tensor import Slice, share_features
from opensora_models.layers.units import HasUnits
from schemas.parallel import ParallelConfig


class Layout:
    """How the state of one module lies; without arguments, this process has all of it."""

    def __init__(
        self,
        equals: Group | None = None,
        neighbours: Group | None = None,
        slices: Mapping[str, Slice] | None = None,
        sharded: FSDPModule | None = None,
        *,
        reduce_late: bool = False,
        bucket: int = 0,
    ) -> None:
        self._equals = equals  # processes whose weights are the same, on other tokens or clips
        self._neighbours = neighbours  # processes that share out the features
        self._slices = slices or {}
        self._sharded = sharded
        self._reduce_late = reduce_late
        self._bucket = bucket

    @property
    def alone(self) -> bool:
        """Whether this process has all of the module, and nobody else has any."""
        return self._equals is None and self._neighbours is None and self._sharded is None

    def begin_micro_batch(self, last: bool) -> None:
        """Say whether the coming backward pass is the last before an update."""
        if self._sharded is not None and self._reduce_late:
            self._sharded.set_requires_gradient_sync(last)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the micro-batches before."""
        torch.autograd.backward(loss)

    def forward_module(self, module: nn.Module) -> nn.Module:
        """Return what is called in the module's place: the module, or the engine's wrapper around it."""
        return module

    def forget(self, module: nn.Module) -> None:
        """Let go of the gradients of a module, without an update."""
        module.zero_grad(set_to_none=True)

    def settle(self) -> None:
        """Wait for the weights of the last update, where an engine gathers them while training goes on."""

    def reshard(self) -> None:
        """Let go of weights that a forward pass without a backward pass gathered."""
        if isinstance(self._sharded, nn.Module):
            for module in self._sharded.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()

    def average(self, gradients: Iterable[Tensor]) -> None:
        """Average gradients over the processes with equal weights, in place; sharded ones were averaged on the way."""
        if self._equals is None or self._sharded is not None:
            return
        works = []
        for bucket in _buckets(gradients, self._bucket):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            works.append((bucket, flat, dist.all_reduce(flat, group=self._equals, async_op=True)))
        for bucket, flat, work in works:
            assert work is not None
            work.wait()
            mean = flat / dist.get_world_size(self._equals)
            parts = torch.split(mean, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [p.view_as(g) for p, g in zip(parts, bucket, strict=True)])

    def norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the norm of the whole model's gradient, a scalar that is the same on every process."""
        total = _norm(gradients.values())
        if self._neighbours is None:
            return total
        divided = _norm(gradient for name, gradient in gradients.items() if name in self._slices).square()
        whole = _norm(gradient for name, gradient in gradients.items() if name not in self._slices).square()
        dist.all_reduce(divided, group=self._neighbours)
        return (divided + whole).sqrt()

    def whole_shape(self, key: str, tensor: Tensor) -> torch.Size:
        """Return the shape of the whole that a tensor of a state dict is a part of."""
        shape = list(tensor.shape)
        if part := self._slice(key, tensor):
            shape[part.axis] *= part.size
        return torch.Size(shape)

    def holds_all(self, key: str, tensor: Tensor) -> bool:
        """Whether this process has the whole of a tensor of a state dict."""
        return not isinstance(tensor, DTensor) and self._slice(key, tensor) is None

    def whole(self, key: str, tensor: Tensor) -> Tensor:
        """Return the whole of a tensor of a state dict; every process has to ask for it."""
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        part = self._slice(key, tensor)
        if part is None:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(part.size)]
        dist.all_gather(parts, tensor.contiguous(), group=self._neighbours)
        return part.put_together(parts)

    @torch.no_grad()
    def take(self, key: str, tensor: Tensor, whole: Tensor) -> None:
        """Copy this process's part of `whole` into a tensor of a state dict."""
        part = self._slice(key, tensor)
        own = part.of(whole) if part else whole
        if isinstance(tensor, DTensor):
            mesh, placements = tensor.device_mesh, tensor.placements
            shard = distribute_tensor(own.to(tensor.device), mesh, placements, src_data_rank=None)
            tensor.to_local().copy_(shard.to_local())
        else:
            tensor.copy_(own)

    def _slice(self, key: str, tensor: Tensor) -> Slice | None:
        """Find the share by a state dict's key: `model.NAME`, `ema.NAME`, `optim.MOMENT.NAME`; a count of steps is whole."""
        if not self._slices or tensor.dim() == 0:
            return None
        name = key.split(".", 1)[-1]
        return self._slices.get(name) or self._slices.get(name.split(".", 1)[-1])


def lay_out(module: nn.Module, config: ParallelConfig, process: Process, dtype: torch.dtype = torch.float32) -> Layout:
    """Spread a module over the processes of a job, as the recipe says; every process has to have the same weights before.

    Weights that are shared out lie in fp32, and are gathered in `dtype`, that of the products.
    Raises OsoraError for a module whose family has no plan, where the recipe needs one, and for an engine that is not there.
    """
    if config.engine == "colossalai":
        from opensora_cli.distributed.colossal import lay_out_by_colossalai  # seconds to import, and by choice

        return lay_out_by_colossalai(module, config, process)
    if process.world_size == 1:
        return Layout()
    stage = sharing_stage(config)
    if stage == 0 and process.together == 1:
        return Layout(equals=world(), bucket=config.reduce_bucket_size_in_m * 1_000_000)
    spread = share_work(module, config, process)
    ranks_EF = torch.arange(process.world_size).view(-1, config.tp_size)
    sharded = _shard(module, process.device.type, ranks_EF, config, stage, dtype) if stage else None
    return Layout(
        spread.equals,
        spread.neighbours,
        spread.slices,
        sharded,
        reduce_late=stage == 1,
        bucket=config.reduce_bucket_size_in_m * 1_000_000,
    )


class Spread(NamedTuple):
    """A model whose features and tokens are shared out: with whom, and which weights are shares."""

    equals: Group
    neighbours: Group | None
    slices: Mapping[str, Slice]


def share_work(module: nn.Module, config: ParallelConfig, process: Process) -> Spread:
    """Share out features and tokens as the sizes of the mesh say. Raises OsoraError for a module without a plan for it."""
    ranks = torch.arange(process.world_size)
    kind, tensor, sequence = process.device.type, config.tp_size, config.sp_size
    groups = DeviceMesh(kind, ranks.view(-1, sequence, tensor), mesh_dim_names=("clips", "tokens", "features"))
    slices = share_features(module, groups.get_group("features")) if tensor > 1 else {}
    if sequence > 1:
        share_tokens(module, groups.get_group("tokens"), config)
    equals = DeviceMesh(kind, ranks.view(-1, tensor), mesh_dim_names=("equals", "features"))["equals"]
    return Spread(equals.get_group(), groups.get_group("features") if slices else None, slices)


def _shard(
    module: nn.Module, kind: str, ranks_EF: Tensor, config: ParallelConfig, stage: int, dtype: torch.dtype
) -> FSDPModule:
    """Give each of the processes with equal weights a part of them; stages 1 and 2 gather all weights once an update."""
    if not isinstance(module, HasUnits):
        raise no_plan(module, "weights", 'plugin = "ddp"')
    equals, features = ranks_EF.shape
    size = config.shard_size or equals
    mesh = DeviceMesh(kind, ranks_EF.view(-1, size, features), mesh_dim_names=("copies", "shards", "features"))
    mesh = mesh["copies", "shards"] if size < equals else mesh["shards"]
    # FSDP2 warns of changing the model's result in place, which the loss does not do.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    # Half the memory and the traffic of fp32. Inputs stay as they are: times and positions need their precision.
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    shared_out = partial(fully_shard, mesh=mesh, reshard_after_forward=stage == 3, mp_policy=precision)
    sharded_units = [shared_out(unit) for unit in module.units]
    if config.overlap_allgather:
        for unit, following in pairwise(sharded_units):
            unit.set_modules_to_forward_prefetch([following])
    sharded = shared_out(module)
    assert isinstance(sharded, FSDPModule)
    return sharded


def world() -> Group:
    """Return the group of all processes of the job that this one has joined."""
    group = dist.group.WORLD
    assert group is not None, "a job of several processes was joined"
    return group


def _norm(gradients: Iterable[Tensor]) -> Tensor:
    norm = nn.utils.get_total_norm(list(gradients), foreach=True)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _buckets(gradients: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yield gradients of one dtype in groups of about `size` numbers."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (sum(g.numel() for g in bucket) + gradient.numel() > size or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
