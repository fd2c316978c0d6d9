"""What judges an autoencoder while it trains: the discriminator, and LPIPS. Both are run on the meta device and counted."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opensora_cli.planning.coded import Extent
from opensora_cli.planning.precision import STATE
from opensora_cli.planning.traced import LiveStorages, SavedStorages
from opensora_models.discriminator.model import KeyedDropout, PatchDiscriminator3D
from opensora_models.vae_loss.lpips import Lpips
from schemas.discriminator import DiscriminatorConfig


@dataclass(frozen=True)
class Judgement:
    """One pass over a batch: the judge's numbers; bytes that autograd saves, and that come and go; FLOPs forward."""

    weights: int
    saved: int
    working: int
    widest: int
    """Bytes of the largest tensor."""
    flops: int


@lru_cache(maxsize=64)
def discriminator_pass(
    config: DiscriminatorConfig, matrix: int, batch: int, extent: Extent, *, learns: bool
) -> Judgement:
    """Count the discriminator on one batch: while it learns, or while the autoencoder learns from it."""
    dtype = _dtype(matrix)
    with torch.device("meta"):
        module = PatchDiscriminator3D(config.model_copy(update={"dropout": 0.0})).to(dtype).requires_grad_(learns)
        clip_BCTHW = torch.empty(batch, 3, *extent, dtype=dtype, requires_grad=not learns)
    masks: list[int] = []

    def note(_module: nn.Module, _arguments: object, out: Tensor) -> None:
        masks.append(out.nbytes if config.dropout else 0)

    for one in module.modules():
        if isinstance(one, KeyedDropout):
            one.register_forward_hook(note)  # the draws themselves need a device
    counted = _count(module, (clip_BCTHW,))
    return Judgement(counted.weights, counted.saved + sum(masks), counted.working, counted.widest, counted.flops)


@lru_cache(maxsize=64)
def lpips_pass(matrix: int, batch: int, extent: Extent) -> Judgement:
    """Count LPIPS on the frames of a batch and of its reconstruction, which has the gradient."""
    frames, height, width = extent
    dtype = _dtype(matrix)
    with torch.device("meta"):
        module = Lpips().to(dtype)
        seen, made = (
            torch.empty(batch * frames, 3, height, width, dtype=dtype, requires_grad=need) for need in (False, True)
        )
    return _count(module, (made, seen))


def _count(module: nn.Module, inputs: tuple[Tensor, ...]) -> Judgement:
    saved = SavedStorages(module)
    with (
        FlopCounterMode(display=False) as flops,
        LiveStorages() as live,
        torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor),
    ):
        result = module(*inputs)
    del result
    weights = sum(parameter.numel() for parameter in module.parameters())
    given = {one.untyped_storage()._cdata: one.nbytes for one in inputs}
    kept = saved.without(given)
    return Judgement(weights, kept, max(0, live.peak - kept), live.largest, flops.get_total_flops())


def _dtype(matrix: int) -> torch.dtype:
    return torch.float32 if matrix == STATE else torch.bfloat16
