"""ColossalAI's Booster as the engine: it averages gradients or shares out the optimizer, and the trainer stays the same.

The weights stay fp32 with every plugin, as with PyTorch's own engine: what `dtype` means does not depend on the engine, and
a checkpoint of one opens in the other. Features and tokens are shared out by osora's own plan, which ShardFormer lacks for
these models. ColossalAI 0.5.0 is imported only here, and only when a recipe asks for it.
"""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from opensora_cli.distributed.exchange import Group
from opensora_cli.distributed.layout import Layout, Spread, share_work, world
from opensora_cli.distributed.process import Process
from opensora_cli.distributed.stage import sharing_stage
from opensora_cli.distributed.tensor import Slice
from opensora_cli.extras import require_colossalai
from schemas.errors import OsoraError
from schemas.parallel import ParallelConfig

if TYPE_CHECKING:
    from torch.optim import Optimizer

_FP32_BYTES = 4
T5 = TypeVar("T5", bound=nn.Module)


class Boosted(Layout):
    """A module and its optimizer in the hands of a plugin of ColossalAI's; `boost` has to come before the first batch."""

    def __init__(self, plugin: Any, neighbours: Group | None, slices: Mapping[str, Slice]) -> None:
        super().__init__(neighbours=neighbours, slices=slices)
        self._plugin = plugin

    @property
    def alone(self) -> bool:
        """Whether this process has all of the module, and nobody else has any: a plugin has to be asked for its gradients."""
        return False

    def boost(self, module: nn.Module, optimizer: "Optimizer") -> Any:
        """Hand a module and its optimizer over to the plugin; return the optimizer to step with."""
        from colossalai.booster import Booster
        from colossalai.zero import LowLevelZeroOptimizer

        self._model, self._optimizer, *_ = Booster(plugin=self._plugin).boost(module, optimizer)
        self._shares = isinstance(self._optimizer, LowLevelZeroOptimizer)
        self._ddp = next((m for m in self._model.modules() if isinstance(m, DistributedDataParallel)), None)
        self._shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        return self._optimizer

    def forward_module(self, module: nn.Module) -> nn.Module:
        """Return the plugin's wrapper, whose forward pass prepares the reduction of gradients."""
        wrapper: nn.Module = self._model
        return wrapper

    def begin_micro_batch(self, last: bool) -> None:
        """Say whether the coming backward pass is the last before an update; stage 2 reduces after each."""
        if self._ddp is not None:
            self._ddp.require_backward_grad_sync = last
        elif not self._optimizer._partition_grads:
            self._optimizer.require_grad_sync = last

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, reduced on the way where this micro-batch is the last."""
        self._optimizer.backward(loss)

    def gradients(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Return the averaged gradients that this process updates with: whole, or with ZeRO its flat shares."""
        found = {
            name: self._optimizer.get_working_grad_by_param_id(id(p)) if self._shares else p.grad
            for name, p in parameters.items()
        }
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def updated(self, parameter: nn.Parameter) -> Tensor:
        """Return the tensor that the optimizer updates in a parameter's place: with ZeRO, a flat share of it."""
        if not self._shares:
            return parameter
        share: Tensor = self._optimizer.working_to_master_param[id(parameter)]
        return share

    def norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the norm of the whole model's gradient, a scalar that is the same on every process."""
        total = super().norm(gradients)
        if not self._shares:
            return total
        squares = total.square()
        dist.all_reduce(squares)
        return squares.sqrt()

    def forget(self, module: nn.Module) -> None:
        """Let go of the gradients, those that were reduced already too."""
        self._optimizer.zero_grad()

    def settle(self) -> None:
        """Wait for the weights that are still being gathered after an update."""
        if self._shares:
            self._model._force_wait_all_gather()

    def whole_shape(self, key: str, tensor: Tensor) -> torch.Size:
        """Return the shape of the whole that a tensor of a state dict is a part of."""
        name = self._share(key, tensor)
        return super().whole_shape(key, tensor) if name is None else self._shapes[name]

    def holds_all(self, key: str, tensor: Tensor) -> bool:
        """Whether this process has the whole of a tensor of a state dict."""
        return self._share(key, tensor) is None and super().holds_all(key, tensor)

    def whole(self, key: str, tensor: Tensor) -> Tensor:
        """Return the whole of a tensor of a state dict; every process has to ask for it."""
        name = self._share(key, tensor)
        if name is None:
            self.settle()
            return super().whole(key, tensor)
        shape = self._shapes[name]
        padded = tensor.new_empty(tensor.numel() * dist.get_world_size())
        dist.all_gather(list(padded.chunk(dist.get_world_size())), tensor.contiguous())
        return padded[: shape.numel()].view(shape)

    @torch.no_grad()
    def take(self, key: str, tensor: Tensor, whole: Tensor) -> None:
        """Copy this process's part of `whole` into a tensor of a state dict."""
        if self._share(key, tensor) is None:
            super().take(key, tensor, whole)
            return
        padded = tensor.new_zeros(tensor.numel() * dist.get_world_size())
        padded[: whole.numel()] = whole.flatten()
        tensor.copy_(padded.view(-1, tensor.numel())[dist.get_rank()])

    def _share(self, key: str, tensor: Tensor) -> str | None:
        """Return the parameter of which `optim.MOMENT.NAME` is a flat share; None for anything that is whole."""
        if not self._shares or tensor.dim() == 0 or not key.startswith("optim."):
            return None
        return key.split(".", 2)[2]


def lay_out_by_colossalai(module: nn.Module, config: ParallelConfig, process: Process) -> Boosted:
    """Spread a module as `lay_out` does, for a plugin of ColossalAI's.

    Raises OsoraError where ColossalAI is missing, or cannot do on this device what the recipe asks for.
    """
    require_colossalai()
    _check_device(config, process)
    # Its own modules, not ours, use what PyTorch and bitsandbytes are about to drop.
    for message in ("`torch.jit", "Please install", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", message=message)
    spread = share_work(module, config, process) if process.together > 1 else Spread(world(), None, {})
    return Boosted(_plugin(config), spread.neighbours, spread.slices)


def _check_device(config: ParallelConfig, process: Process) -> None:
    if process.device.type == "cpu" and sharing_stage(config):
        raise OsoraError(
            f'parallel.plugin = "{config.plugin}": ColossalAI shares out optimizers on GPUs alone, and this process works on '
            'the CPU. Use plugin = "ddp", or engine = "torch", which does it on any device.'
        )
    if process.device.type == "cpu" and torch.cuda.is_available():
        raise OsoraError(
            'device = "cpu": ColossalAI takes the GPU wherever there is one. Use device = "cuda" or engine = "torch".'
        )


def _plugin(config: ParallelConfig) -> Any:
    """Return the plugin of a recipe. ColossalAI counts in bytes for DDP and in numbers for ZeRO."""
    stage = sharing_stage(config)
    if stage:
        from colossalai.booster.plugin import LowLevelZeroPlugin

        return LowLevelZeroPlugin(
            stage=stage,
            precision="fp32",
            master_weights=False,  # the weights are fp32 themselves: no second copy
            cast_inputs=False,
            reduce_bucket_size_in_m=config.reduce_bucket_size_in_m,
            overlap_allgather=config.overlap_allgather,
        )
    megabytes = _FP32_BYTES * config.reduce_bucket_size_in_m
    if config.plugin == "hybrid":
        from colossalai.booster.plugin import HybridParallelPlugin

        return HybridParallelPlugin(
            tp_size=config.tp_size,
            pp_size=1,
            zero_stage=0,
            precision="fp32",
            custom_policy=_spread_already(),
            broadcast_buffers=False,  # they are constants
            ddp_bucket_cap_mb=megabytes,
            static_graph=config.static_graph,
        )
    from colossalai.booster.plugin import TorchDDPPlugin

    return TorchDDPPlugin(broadcast_buffers=False, bucket_cap_mb=megabytes, static_graph=config.static_graph)


def _spread_already() -> Any:
    """Return a policy of ShardFormer's that leaves a model as it is."""
    from colossalai.shardformer.policies.base_policy import Policy

    class SpreadAlready(Policy):  # type: ignore[misc]  # ColossalAI has no types
        """Features and tokens are shared out before the model comes to the plugin."""

        def config_sanity_check(self) -> None:
            """Nothing here depends on ShardFormer's settings."""

        def preprocess(self) -> nn.Module:
            """Return the model."""
            model: nn.Module = self.model
            return model

        def module_policy(self) -> dict[str, Any]:
            """Replace nothing."""
            return {}

        def postprocess(self) -> nn.Module:
            """Return the model."""
            model: nn.Module = self.model
            return model

    return SpreadAlready()


def shard_t5(encoder: T5) -> T5:
    """Return a T5 encoder with the layers of ShardFormer's policy: fused additions, and apex's norm where apex is.

    The policy's attention is left out: it has the signature of an older transformers. Results change by rounding alone.
    """
    require_colossalai()
    from colossalai.shardformer import ShardConfig, ShardFormer
    from colossalai.shardformer.policies.t5 import T5EncoderPolicy
    from transformers.models.t5.modeling_t5 import T5LayerSelfAttention

    class Policy(T5EncoderPolicy):  # type: ignore[misc]  # ColossalAI has no types
        """ShardFormer's policy, but for attention."""

        def module_policy(self) -> dict[Any, Any]:
            """Leave the method of self-attention as it is."""
            policy: dict[Any, Any] = super().module_policy()
            policy[T5LayerSelfAttention].method_replacement = None
            return policy

    config = ShardConfig(
        enable_tensor_parallelism=False,
        enable_jit_fused=True,
        enable_fused_normalization=find_spec("apex") is not None,
    )
    sharded, _ = ShardFormer(config).optimize(encoder, policy=Policy())
    result: T5 = sharded.eval().requires_grad_(False)
    return result
