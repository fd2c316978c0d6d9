"""From noise to a latent: a solver's steps along the velocity that the model predicts.

Legend: B samples, C latent channels, T latent frames, H W latent pixels, N image tokens, D features, L text tokens.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opensora_cli.distributed.team import ALL_BRANCHES, SharedBranches
from opensora_models.diffusion.guidance import Branch, GuidanceScales, branch_weights, combine, step_scales
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack
from opensora_models.diffusion.solver import OnStep, SolverName, solve
from opensora_models.mmdit.step_cache import StepCache
from opensora_models.text.features import TextFeatures

ALONE_ON = frozenset({"cpu"})
"""Kinds of devices where every sample goes through the model alone."""


@dataclass(frozen=True)
class Denoised:
    """A clean `latent` (B, C, T, H, W) float32, and how often the model was evaluated for each sample.

    `reused` says for each how many of these evaluations took what most blocks add from an earlier one.
    """

    latent: Tensor
    evaluations: int
    reused: tuple[int, ...]


@torch.no_grad()
def denoise(
    model: nn.Module,
    noise_BCTHW: Tensor,
    caption: TextFeatures,
    negative: TextFeatures,
    *,
    times: Tensor,
    scales: GuidanceScales,
    patch_size: int,
    condition_BCTHW: Tensor | None = None,
    solver: SolverName = "euler",
    in_turn: bool = False,
    on_step: OnStep | None = None,
    shared: SharedBranches = ALL_BRANCHES,
    cache_threshold: float = 0.0,
) -> Denoised:
    """Denoise with guidance by text and image; `times` are the num_steps + 1 times from 1 to 0.

    `condition_BCTHW` is (B, 1 + C, T, H, W), all zero for text to video, None for a model that takes no condition.
    A step evaluates only the branches that count in it: in one forward, or with `in_turn` in one each; of `shared` ones
    each process evaluates its own. The latent is kept in float32 between steps whatever the precision of the model.
    Above 0, `cache_threshold` lets steps reuse what most blocks added before, see `StepCache`.
    """
    frames, starts = noise_BCTHW.shape[2], times.tolist()
    branches = _branch_inputs(caption, negative, condition_BCTHW, patch_size)
    has_condition = condition_BCTHW is not None and bool(condition_BCTHW[:, 0].any())

    def velocity(evaluate: _Evaluation, img_BND: Tensor, time: float, step: int) -> Tensor:
        text_scale, image_scales_T = step_scales(scales, step, len(starts) - 1, frames, starts[step])
        weights = branch_weights(text_scale, image_scales_T, has_condition=has_condition)
        own = shared.own(list(weights))
        groups = [[branch] for branch in own] if in_turn or not own else [own]
        velocities: dict[Branch, Tensor] = {}
        for group in groups:
            together_BND = evaluate(img_BND, time, [branches[branch] for branch in group])
            velocities |= zip(group, together_BND.chunk(len(group)), strict=True)
        evaluate.branches += len(weights) - len(own)
        return combine(shared.join(velocities, list(weights), img_BND), weights)

    return _integrate(model, noise_BCTHW, starts, patch_size, solver, velocity, on_step, cache_threshold)


@torch.no_grad()
def denoise_distilled(
    model: nn.Module,
    noise_BCTHW: Tensor,
    caption: TextFeatures,
    *,
    times: Tensor,
    guidance: float,
    patch_size: int,
    condition_BCTHW: Tensor | None = None,
    solver: SolverName = "euler",
    on_step: OnStep | None = None,
    cache_threshold: float = 0.0,
) -> Denoised:
    """Denoise with a model that takes the guidance scale as an input: one branch, no negative prompt."""
    cond_BND = None if condition_BCTHW is None else pack(condition_BCTHW, patch_size)
    only = _BranchInput("caption", caption["t5"], caption["clip"], cond_BND)

    def velocity(evaluate: _Evaluation, img_BND: Tensor, time: float, step: int) -> Tensor:
        return evaluate(img_BND, time, [only], guidance=guidance).float()

    return _integrate(model, noise_BCTHW, times.tolist(), patch_size, solver, velocity, on_step, cache_threshold)


@dataclass(frozen=True)
class _BranchInput:
    """What tells the branches of one step apart."""

    name: Branch
    tokens: Tensor
    vector: Tensor
    cond: Tensor | None

    def row(self, item: int) -> "_BranchInput":
        """Return one sample's part."""
        cond = None if self.cond is None else self.cond[item : item + 1]
        return _BranchInput(self.name, self.tokens[item : item + 1], self.vector[item : item + 1], cond)


class _Evaluation:
    """Runs the model on branches of a batch of latents, and counts.

    On a CPU (ALONE_ON) every sample goes through the model alone: matrix products round differently for other numbers
    of rows, and there is no speed to gain from more of them. So the batch of a sample does not show in its bits.
    """

    def __init__(
        self,
        model: nn.Module,
        size: tuple[int, int, int],
        patch_size: int,
        cache: StepCache | None,
        last_time: float,
    ) -> None:
        self.branches = 0
        self._cache = cache
        self._last_time = last_time
        self._model = model
        self._size = size
        self._patch_size = patch_size
        self._dtype = next(model.parameters()).dtype

    def __call__(
        self, img_BND: Tensor, time: float, branches: list[_BranchInput], *, guidance: float | None = None
    ) -> Tensor:
        """Return the velocities of the branches, one behind the other: (branches * B, N, D)."""
        self.branches += len(branches)
        if img_BND.device.type not in ALONE_ON:
            return self._forward(img_BND, time, branches, guidance, range(len(img_BND)))
        rows = [
            self._forward(img_BND[item : item + 1], time, [branch.row(item) for branch in branches], guidance, [item])
            for item in range(len(img_BND))
        ]
        return torch.stack(rows, dim=1).flatten(0, 1)

    def _forward(
        self,
        img_BND: Tensor,
        time: float,
        branches: list[_BranchInput],
        guidance: float | None,
        items: Sequence[int],
    ) -> Tensor:
        copies, device = len(branches), img_BND.device
        rows = copies * len(img_BND)
        tokens_BLD = torch.cat([one.tokens for one in branches])
        conditions = [one.cond for one in branches if one.cond is not None]
        options = {}
        if self._cache is not None:
            names = [(one.name, item) for one in branches for item in items]
            # The last step has none behind it that could mend its error.
            self._cache.expect(names, in_full=time <= self._last_time)
            options["step_cache"] = self._cache
        velocity_BND: Tensor = self._model(
            img_BND=img_BND.to(self._dtype).repeat(copies, 1, 1),
            img_ids_BN3=image_ids(*self._size, self._patch_size, batch=rows, device=device),
            txt_BLD=tokens_BLD.to(self._dtype),
            txt_ids_BL3=text_ids(tokens_BLD.shape[1], batch=rows, device=device),
            timesteps_B=torch.full((rows,), time, device=device),
            y_vec_BD=torch.cat([one.vector for one in branches]).to(self._dtype),
            cond_BND=torch.cat(conditions).to(self._dtype) if conditions else None,
            guidance_B=None if guidance is None else torch.full((rows,), guidance, device=device),
            **options,
        )
        return velocity_BND


def _integrate(
    model: nn.Module,
    noise_BCTHW: Tensor,
    times: list[float],
    patch_size: int,
    solver: SolverName,
    velocity: Callable[[_Evaluation, Tensor, float, int], Tensor],
    on_step: OnStep | None,
    cache_threshold: float,
) -> Denoised:
    frames, height, width = noise_BCTHW.shape[2:]
    cache = StepCache(cache_threshold) if cache_threshold > 0 else None
    evaluate = _Evaluation(model, (frames, height, width), patch_size, cache, last_time=times[-2])
    img_BND = solve(
        lambda x_BND, time, step: velocity(evaluate, x_BND, time, step),
        pack(noise_BCTHW.float(), patch_size),
        times,
        solver,
        on_step,
    )
    counts = Counter[int]()
    for (_, item), times_reused in (cache.reused if cache is not None else {}).items():
        counts[item] += times_reused
    reused = tuple(counts[item] for item in range(len(noise_BCTHW)))
    return Denoised(unpack(img_BND, frames, height, width, patch_size), evaluate.branches, reused)


def _branch_inputs(
    caption: TextFeatures, negative: TextFeatures, condition_BCTHW: Tensor | None, patch_size: int
) -> dict[Branch, _BranchInput]:
    cond_BND = None if condition_BCTHW is None else pack(condition_BCTHW, patch_size)
    nothing_BND = None if cond_BND is None else torch.zeros_like(cond_BND)
    return {
        "caption": _BranchInput("caption", caption["t5"], caption["clip"], cond_BND),
        "negative": _BranchInput("negative", negative["t5"], negative["clip"], cond_BND),
        "negative_unconditioned": _BranchInput("negative_unconditioned", negative["t5"], negative["clip"], nothing_BND),
    }
