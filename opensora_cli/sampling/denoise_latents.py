"""From noise to a latent with the denoisers of Open-Sora 1.x: a diffusion process's steps, guided by the caption.

Legend: B samples, C latent channels, T latent frames, H W latent pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from opensora_cli.sampling.denoise import ALONE_ON, Denoised
from opensora_models.conditions import conditions_of
from opensora_models.diffusion.classifier_free import guided
from opensora_models.diffusion.process import ClipSize, Draw, Process, ProcessSolver
from opensora_models.diffusion.solver import OnStep

Scale = Callable[[int, float], float]
"""Guidance scale of a 0-based step that starts at a time: 1 is noise, 0 is data."""


@dataclass(frozen=True)
class Steps:
    """How many steps of which solver, and how they are guided."""

    count: int
    solver: ProcessSolver
    scale: Scale
    guided_channels: int | None = None
    """Channels that guidance changes, from the first; None: all that stand for the latent."""
    in_turn: bool = False
    """Whether caption and empty caption are evaluated one after the other, in less memory."""


@torch.no_grad()
def denoise_latents(
    model: nn.Module,
    process: Process,
    start_BCTHW: Tensor,
    size: ClipSize,
    conditions: Mapping[str, Tensor],
    steps: Steps,
    *,
    draw: Draw,
    mask_BT: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Denoised:
    """Denoise clips of one size; `conditions` are by the names of the model's arguments, a row for each sample.

    `start_BCTHW` is unit noise, with given latents in the frames whose `mask_BT` is below 1: see `Process.sample`. A step
    whose scale is 1 evaluates the caption alone. Latents are kept in float32 between steps.
    """
    taken = {name: conditions[name] for name in conditions_of(model) & conditions.keys()}
    evaluate = _Evaluation(model, taken, steps)

    def predict(x_BCTHW: Tensor, t_B: Tensor, active_BT: Tensor | None, step: int) -> Tensor:
        scale = steps.scale(step, float(t_B[0]) / process.noise_time)
        return evaluate(x_BCTHW, t_B, active_BT, scale)

    latent_BCTHW = process.sample(
        predict,
        start_BCTHW.float(),
        size,
        steps=steps.count,
        solver=steps.solver,
        draw=draw,
        mask_BT=mask_BT,
        on_step=on_step,
    )
    return Denoised(latent_BCTHW, evaluate.branches, (0,) * len(start_BCTHW))


@dataclass
class _Evaluation:
    """Runs the model with and without the caption; on a CPU every sample alone, so that its batch does not show in its bits."""

    model: nn.Module
    conditions: Mapping[str, Tensor]
    steps: Steps
    branches: int = field(default=0, init=False)

    def __call__(self, x_BCTHW: Tensor, t_B: Tensor, active_BT: Tensor | None, scale: float) -> Tensor:
        self.branches += 1 if scale == 1 else 2
        if x_BCTHW.device.type not in ALONE_ON:
            return self._guided(x_BCTHW, t_B, active_BT, self.conditions, scale)
        rows = [slice(item, item + 1) for item in range(len(x_BCTHW))]
        return torch.cat(
            [
                self._guided(
                    x_BCTHW[row],
                    t_B[row],
                    None if active_BT is None else active_BT[row],
                    {name: tensor[row] for name, tensor in self.conditions.items()},
                    scale,
                )
                for row in rows
            ]
        )

    def _guided(
        self, x: Tensor, t_B: Tensor, active_BT: Tensor | None, conditions: Mapping[str, Tensor], scale: float
    ) -> Tensor:
        inputs = {"x_BCTHW": x.to(next(self.model.parameters()).dtype), "timesteps_B": t_B, **conditions}
        if active_BT is not None and "x_mask_BT" in conditions_of(self.model):
            inputs["x_mask_BT"] = active_BT
        kept = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        if scale == 1:
            return self._answer(inputs, kept)
        if self.steps.in_turn:
            caption, empty = self._answer(inputs, kept), self._answer(inputs, ~kept)
        else:
            twice = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
            caption, empty = self._answer(twice, torch.cat([kept, ~kept])).chunk(2)
        return guided(caption, empty, scale, self.steps.guided_channels or x.shape[1])

    def _answer(self, inputs: Mapping[str, Tensor], drop_B: Tensor) -> Tensor:
        out_BCTHW: Tensor = self.model(**inputs, drop_B=drop_B)
        return out_BCTHW.float()
