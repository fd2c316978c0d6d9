"""AdamW with moments of 8 bits per number (after Dettmers et al. 2022, "8-bit optimizers via block-wise quantization").

A block is up to 256 neighbours of a row, with its largest value kept in fp32. Numbers in a block are relative to that one:
the first moment as a sign and a square root in 127 steps, the second as a fourth root in 255, so that small numbers keep
their precision. They are rounded up or down at random, by a generator of the update's number: on average nothing is lost,
where rounding to the nearest would swallow every change smaller than half a step, and a resumed run draws the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from opensora_cli.training.adamw import DeviceAdamW
from opensora_cli.training.draws import keyed_generator
from schemas.optim import OptimConfig

BLOCK = 256
SMALLEST = 4096
"""Tensors with fewer numbers, and those with one axis, keep moments in fp32: there is nothing to save."""
PORTION = 2**24
"""Numbers that are updated at once: bounds the fp32 copies of their moments."""


@dataclass(frozen=True)
class Code:
    """How numbers relative to their block's largest become whole ones: the `power`-th root in so many steps."""

    power: int
    steps: int
    dtype: torch.dtype

    def value(self, code: Tensor) -> Tensor:
        """Return the numbers that codes stand for, as shares of their block's largest."""
        return (code / self.steps).abs().pow_(self.power)

    def encode(self, share: Tensor, chance: Tensor) -> Tensor:
        """Return codes for shares in [0, 1]; `chance` in [0, 1) decides whether one is rounded up, in proportion."""
        low = share.pow(1 / self.power).mul_(self.steps).floor_().clamp_(max=self.steps - 1)
        below, above = self.value(low), self.value(low + 1)
        return low.add_((share - below) > chance * (above - below))


SIGNED = Code(2, 127, torch.int8)
UNSIGNED = Code(4, 255, torch.uint8)


def quantise(x_RC: Tensor, code: Code, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes (R, C) and the largest absolute value of every block (R, blocks) of rows of numbers."""
    blocks = _blocks(x_RC.abs())
    scale_RN = blocks.amax(-1)
    share = blocks.div_(scale_RN.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).flatten(1)[:, : x_RC.shape[1]]
    found = code.encode(share, chance)
    return (found.copysign_(x_RC) if code is SIGNED else found).to(code.dtype), scale_RN


def dequantise(code_RC: Tensor, scale_RN: Tensor, code: Code) -> Tensor:
    """Return the fp32 numbers that codes and their blocks' scales stand for."""
    value = code.value(code_RC.float())
    if code is SIGNED:
        value.copysign_(code_RC)
    return value.mul_(scale_RN.repeat_interleave(BLOCK, 1)[:, : value.shape[1]])


class AdamW8bit:
    """AdamW of which large matrices have moments in 8 bits, and all else in fp32."""

    def __init__(self, params: Mapping[str, nn.Parameter], config: OptimConfig) -> None:
        self.config = config
        self.params = {name: p for name, p in params.items() if p.dim() > 1 and p.numel() >= SMALLEST}
        rest = {name: p for name, p in params.items() if name not in self.params}
        self.rest = DeviceAdamW(rest, config) if rest else None
        self.moments = {name: _empty_moments(p) for name, p in self.params.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Apply the gradients that are there, and forget them."""
        for name, p in self.params.items():
            if p.grad is not None:
                self._update(name, lr)
                p.grad = None
        if self.rest is not None:
            self.rest.step(lr)

    def state(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield parameter name, moment and its tensor; a scale has one number for each block of a row."""
        for name, moments in self.moments.items():
            for moment, tensor in moments.items():
                yield name, moment, tensor
        if self.rest is not None:
            yield from self.rest.state()

    def _update(self, name: str, lr: float) -> None:
        moments = self.moments[name]
        step = moments["step"].add_(1)
        p, gradient = self.params[name], self.params[name].grad
        assert gradient is not None
        tensors = [_rows(one) for one in (p, gradient, *(moments[key] for key in _TENSORS))]
        if not tensors[0].numel():
            return  # a process can have no row of a small matrix
        # The count is a number of the host, as a generator's seed has to be.
        chance = torch.Generator(p.device).manual_seed(keyed_generator(f"moments of {name}", int(step)).initial_seed())
        rows = max(1, PORTION // tensors[0].shape[1])
        for portion in zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True):
            self._update_rows(portion, int(step), lr, chance)

    def _update_rows(self, tensors: tuple[Tensor, ...], step: int, lr: float, chance: torch.Generator) -> None:
        """AdamW (Loshchilov and Hutter 2019, algorithm 2) in fp32; only what is kept is rounded."""
        config, (p, gradient, *kept) = self.config, tensors
        beta1, beta2 = config.betas
        first = dequantise(kept[0], kept[1], SIGNED).lerp_(gradient, 1 - beta1)
        second = dequantise(kept[2], kept[3], UNSIGNED).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        drawn = torch.rand(p.shape, generator=chance, device=p.device)
        for target, value in zip(
            kept, (*quantise(first, SIGNED, drawn), *quantise(second, UNSIGNED, drawn)), strict=True
        ):
            target.copy_(value)
        deviation = second.sqrt_().div_((1 - beta2**step) ** 0.5).add_(config.eps)
        p.mul_(1 - lr * config.weight_decay).addcdiv_(first, deviation, value=-lr / (1 - beta1**step))


_TENSORS = ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale")


def _empty_moments(p: nn.Parameter) -> dict[str, Tensor]:
    """Return moments that are zero. Scales have the rows of the weight, so that both are shared out alike."""
    blocks = -(-(p.numel() // p.shape[0]) // BLOCK)
    scale = torch.zeros(p.shape[0], blocks, device=p.device)
    if isinstance(p, DTensor):
        local = p.to_local()
        part = torch.zeros(local.shape[0], blocks, device=local.device)
        scale = DTensor.from_local(
            part, p.device_mesh, p.placements, run_check=False, shape=scale.shape, stride=scale.stride()
        )
    return {
        "step": torch.zeros(()),
        "exp_avg": torch.zeros_like(p, dtype=SIGNED.dtype, requires_grad=False),
        "exp_avg_scale": scale,
        "exp_avg_sq": torch.zeros_like(p, dtype=UNSIGNED.dtype, requires_grad=False),
        "exp_avg_sq_scale": scale.clone(),
    }


def _rows(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor, all axes behind the first as one."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.flatten(1) if local.numel() else local.reshape(0, 1)


def _blocks(x_RC: Tensor) -> Tensor:
    missing = -x_RC.shape[1] % BLOCK
    padded_RC = F.pad(x_RC, (0, missing)) if missing else x_RC
    return padded_RC.view(x_RC.shape[0], -1, BLOCK)
