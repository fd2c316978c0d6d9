"""Memory and work of a denoiser of latents by running its own code on the meta device, so that no family is followed by hand.

Blocks of one kind cost the same for equal inputs: one of them runs, and the others hand their first input on.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from opensora_cli.planning.denoised import Flops, LatentClips
from opensora_cli.planning.meta_kernels import MetaKernels, Work
from opensora_cli.planning.modules import block_kinds
from opensora_cli.planning.precision import STATE, Precision
from opensora_cli.planning.traced import LiveStorages
from opensora_models.build import build_denoiser
from opensora_models.conditions import conditions_of
from opensora_models.layers.recompute import Recompute
from opensora_models.layers.units import units_of
from schemas.denoiser import DenoiserConfig, LatentDenoiser

Forward = Callable[..., Tensor]
Visit = Callable[..., Tensor]
"""What stands for a block: of its kind, its own forward function and its inputs, makes the next block's first input."""
WITH_MATRICES = (nn.Linear, nn.Conv2d, nn.Conv3d)
NUMBERS = ("fps_B", "height_B", "width_B", "num_frames_B", "aspect_B")
SMALLEST = LatentClips(1, (1, 4, 4), 1)


@dataclass(frozen=True)
class Block:
    """A block of the clips that were traced, bytes. `kind` as in `modules.block_kinds`."""

    kind: str
    stream: int
    """What comes from the block before."""
    saved: int
    """What autograd saves, of the stream too."""
    products: int
    """Results of matrix products and attention."""
    working: int
    """What comes and goes at most, forward or back, beside what is saved."""
    flops: Flops


@dataclass(frozen=True)
class Trace:
    """A forward pass that autograd follows: bytes that are saved before, in and behind the blocks.

    `names` are the blocks', `out` the numbers of the answer, `ends` the work around the blocks.
    """

    names: tuple[str, ...]
    entry: int
    blocks: tuple[Block, ...]
    final: int
    out: int
    ends: Flops

    @property
    def flops(self) -> Flops:
        """The work of all of it."""
        parts = [self.ends, *(block.flops for block in self.blocks)]
        return Flops(sum(part.products for part in parts), sum(part.attention for part in parts))


@lru_cache(maxsize=256)
def trace(config: DenoiserConfig, precision: Precision, clips: LatentClips) -> Trace:
    """Run a training step's forward pass under autocast, and every kind of block back as well."""
    model = _traced_model(config, precision, True)
    inputs = model.inputs(clips)
    step = _Step(model.weights | _storages(inputs.values()))
    with torch.enable_grad(), step.work, saved_tensors_hooks(step.pack, _same):
        out = model(inputs, step)
    blocks, ends = tuple(step.blocks), step.work.flops
    return Trace(model.names, step.entry.total, blocks, step.final.total, out.numel(), ends)


@lru_cache(maxsize=256)
def evaluation_peak(config: DenoiserConfig, precision: Precision, clips: LatentClips) -> int:
    """Return the most bytes alive in an evaluation without a backward pass, weights and inputs left out."""
    model = _traced_model(config, precision, False)
    inputs = model.inputs(clips)
    live = LiveStorages(model.weights | _storages(inputs.values()))
    with live, torch.no_grad():
        model(inputs, _Evaluation())
    return live.peak


@lru_cache(maxsize=64)
def recomputed_blocks(
    config: DenoiserConfig, precision: Precision, first: int, second: int, every: int
) -> frozenset[str]:
    """Return the names of the blocks that a family recomputes for such settings."""
    model = _traced_model(config, precision, True)
    noted = _Noted()
    model.module.set_grad_checkpointing(first, second, every, noted)
    model(model.inputs(SMALLEST), lambda _kind, _forward, x, *_: x)
    model.module.set_grad_checkpointing(0, 0)
    units = zip(model.names, units_of(model.module), strict=True)
    return frozenset(name for name, unit in units if unit in noted.blocks)


def largest_matrix(config: DenoiserConfig, precision: Precision) -> int:
    """Return the numbers of the largest parameter."""
    model = _traced_model(config, precision, True)
    return max(int(parameter.numel()) for parameter in model.module.parameters())


@lru_cache(maxsize=8)
def _traced_model(config: DenoiserConfig, precision: Precision, trained: bool) -> "_TracedModel":
    return _TracedModel(config, precision, trained)


class _TracedModel:
    """A denoiser without memory, whose blocks do what a visit makes of them.

    `trained`: in the precisions of autocast, else in the lower one throughout.
    """

    def __init__(self, config: DenoiserConfig, precision: Precision, trained: bool) -> None:
        with torch.device("meta"):
            self.module = build_denoiser(config)
        self._config = config
        self._kernels = MetaKernels(precision)
        self._dtype = torch.float32 if precision.matrix == STATE else torch.bfloat16
        self._latents_dtype = torch.float32 if trained else self._dtype
        for module in self.module.modules() if trained else [self.module]:
            if not trained or isinstance(module, WITH_MATRICES):
                module.to(self._dtype)
        self.weights = _storages(self.module.state_dict().values())
        self._visit: Visit | None = None
        units, names = units_of(self.module), {module: name for name, module in self.module.named_modules()}
        self.names = tuple(names[unit] for unit in units)
        for kind, unit in zip(block_kinds(self.module), units, strict=True):
            unit.forward = partial(self._enter, kind, unit.forward)

    def __call__(self, inputs: Mapping[str, Tensor], visit: Visit) -> Tensor:
        """Return the answer; `visit` stands for every block, in order."""
        self._visit = visit
        with self._kernels:
            out: Tensor = self.module(**inputs)
        return out

    def _enter(self, kind: str, forward: Forward, *inputs: Any) -> Tensor:
        assert self._visit is not None
        return self._visit(kind, forward, *inputs)

    def inputs(self, clips: LatentClips) -> dict[str, Tensor]:
        """Return what the denoiser takes of such clips; a mask of given frames, where it has one, as well."""
        config, batch, frames = self._config, clips.batch, clips.latents[0]
        assert isinstance(config, LatentDenoiser)
        empty = partial(torch.empty, device="meta")
        known = {
            "text_BLD": empty(batch, clips.text, config.caption_channels, dtype=self._dtype),
            "text_mask_BL": empty(batch, clips.text, dtype=torch.bool),
            "labels_B": empty(batch, dtype=torch.int64),
            "drop_B": empty(batch, dtype=torch.bool),
            "x_mask_BT": empty(batch, -(-frames // config.patch_size[0]), dtype=torch.bool),
            **{name: empty(batch) for name in NUMBERS},
        }
        unused = {"text_BLD" if "labels" in config.texts else "labels_B"}
        unused |= set() if config.class_dropout_prob else {"drop_B"}
        x_BCTHW = empty(batch, config.in_channels, *clips.latents, dtype=self._latents_dtype)
        taken = {name: known[name] for name in conditions_of(self.module) - unused}
        return {"x_BCTHW": x_BCTHW, "timesteps_B": empty(batch), **taken}


class _Step:
    """The visit of a training step: measures one block for each kind and shape of inputs."""

    def __init__(self, known: set[int]) -> None:
        self.known = known
        self.work = Work()
        self.entry, self.final = _Saved(known), _Saved(known)
        self.blocks: list[Block] = []
        self._measured: dict[object, Block] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Note what is saved outside of blocks."""
        return (self.final if self.blocks else self.entry).pack(tensor)

    def __call__(self, kind: str, forward: Forward, x: Tensor, *others: Any) -> Tensor:
        key = _key(kind, x, *others)
        if key not in self._measured:
            around = self.work.flops
            self._measured[key] = self._measure(kind, forward, x, others)
            self.work.flops = around
        self.blocks.append(self._measured[key])
        return x

    def _measure(self, kind: str, forward: Forward, x: Tensor, others: Iterable[Any]) -> Block:
        """Run a block forward and back. What it saves of inputs that all blocks share is the entry's."""
        x, shared = x.detach().requires_grad_(), _storages(others)
        stream = x.untyped_storage()
        own = _Saved(self.known)

        def pack(tensor: Tensor) -> Tensor:
            return (self.entry if tensor.untyped_storage()._cdata in shared else own).pack(tensor)

        live, work = LiveStorages(self.known | shared | {stream._cdata}), Work()
        with live, work:
            with saved_tensors_hooks(pack, _same):
                out = forward(x, *others)
            flops, products = work.flops, work.results
            made = own.total - own.sizes.get(stream._cdata, 0)
            ahead = live.peak - made
            live.peak = live.now
            torch.autograd.grad(out, x, torch.empty_like(out))
            behind = live.peak - made - out.nbytes  # the block behind has seen to the output
        return Block(kind, stream.nbytes(), own.total, products, max(ahead, behind), flops)


class _Evaluation:
    """The visit of an evaluation: runs two blocks for each kind and shape of inputs.

    When the second runs, there is also what the model holds on to of the first one's input.
    """

    def __init__(self) -> None:
        self._seen = Counter[object]()

    def __call__(self, kind: str, forward: Forward, x: Tensor, *others: Any) -> Tensor:
        key = _key(kind, x, *others)
        self._seen[key] += 1
        return forward(x, *others) if self._seen[key] <= 2 else x


class _Noted(Recompute):
    """Notes the blocks that are to be recomputed."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Any] = []

    def __call__(self, block: Callable[..., Any], *inputs: Any) -> Any:
        self.blocks.append(block)
        return block(*inputs)


class _Saved:
    """Sizes of the storages that autograd saves, by their address, each once; keeps none of them alive."""

    def __init__(self, known: Container[int]) -> None:
        self._known = known
        self.sizes: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is saved."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self.sizes[storage._cdata] = storage.nbytes()
        return tensor

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(self.sizes.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _key(kind: str, *inputs: Any) -> object:
    return kind, tuple(one.shape if isinstance(one, Tensor) else one for one in inputs)


def _storages(tensors: Iterable[Any]) -> set[int]:
    return {one.untyped_storage()._cdata for one in tensors if isinstance(one, Tensor)}
