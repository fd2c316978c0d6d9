"""What every diffusion process can do: draw times to train, mix in noise, measure a prediction, and sample.

Times are those that the model is given: 0 is data, `noise_time` is noise. Where latents have frames (B, C, T, H, W) or
are tokens with the frames outermost (B, N, D), a mask (B, T) tells their frames apart.
Legend: B batch, C latent channels, T latent frames, H W latent pixels, N image tokens, D token features.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from einops import rearrange, repeat
from torch import Tensor

from opensora_models.diffusion.solver import OnStep

ProcessSolver = Literal["euler", "heun", "dpmpp_2m", "ddpm", "ddim"]
"""euler and heun follow a velocity, ddpm and ddim go from one noise level to the next, dpmpp_2m does either."""

Predict = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]
"""predict(x, t_B, active_BT, step): the guided output of the model at x and the times t_B, in the 0-based step.

`active_BT` is true where a frame is being denoised, None when all are.
"""

Purpose = Literal["frames", "step"]
"""What noise is for: frames that join only now, or the step of a solver that draws."""

Draw = Callable[[int, Purpose], Tensor]
"""draw(step, purpose): unit noise of the latent's shape. Its order must not matter: the noise belongs to its arguments."""


class ClipSize(NamedTuple):
    """Size of the clips of a batch: video frames, pixels, and what they are as latents."""

    frames: int
    height: int
    width: int
    latent_frames: int
    tokens_per_frame: int


class Process(Protocol):
    """A diffusion process. `out` is what the model gives: latents, perhaps with more channels behind for the variance."""

    @property
    def noise_time(self) -> float:
        """The time of pure noise: 1 or the number of timesteps."""

    @property
    def solvers(self) -> tuple[ProcessSolver, ...]:
        """The solvers that `sample` knows, the usual one first."""

    def draw_times(self, generator: torch.Generator, batch: int, clip: ClipSize) -> Tensor:
        """Draw one time for each item, (B,) on the generator's device."""

    def add_noise(self, x_0: Tensor, noise: Tensor, t_B: Tensor, active_BT: Tensor | None = None) -> Tensor:
        """Return x_0 at the times; frames that are not active are at time 0."""

    def losses(
        self,
        out: Tensor,
        x_0: Tensor,
        x_t: Tensor,
        noise: Tensor,
        t_B: Tensor,
        active_BT: Tensor | None = None,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each item, (B,) float32, over its active frames; `weights_B` multiplies squared errors."""

    def sample(
        self,
        predict: Predict,
        start: Tensor,
        clip: ClipSize,
        *,
        steps: int,
        solver: ProcessSolver,
        draw: Draw,
        mask_BT: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return clean latents, float32, from `start`.

        `start` is unit noise, and the given latents in frames whose mask is below 1. A frame of mask 0 is kept, one of
        mask 1 is made, and between them it joins at that share of the noise, so that it is changed the less the lower.
        Raises ValueError for a solver or a mask that the process does not know.
        """


def per_item(value_B: Tensor, like: Tensor) -> Tensor:
    """Return values of items so that they broadcast over `like`, (B, 1, ...)."""
    return value_B.view(-1, *[1] * (like.ndim - 1))


def per_frame(value_BT: Tensor, like: Tensor) -> Tensor:
    """Return values of frames so that they broadcast over latents (B, C, T, H, W) or tokens (B, N, D)."""
    if like.ndim == 5:
        return rearrange(value_BT, "b t -> b 1 t 1 1")
    return repeat(value_BT, "b t -> b (t n) 1", n=like.shape[1] // value_BT.shape[1])


def mean_per_item(error: Tensor, active_BT: Tensor | None = None) -> Tensor:
    """Return the mean over each item's active frames, (B,); an item without any gives 0."""
    if active_BT is None:
        return error.flatten(1).mean(dim=1)
    counts = per_frame(active_BT.to(error), error).expand_as(error)
    return (error * counts).flatten(1).sum(dim=1) / counts.flatten(1).sum(dim=1).clamp(min=1)


def check_solver(name: ProcessSolver, process: Process) -> None:
    """Raise ValueError for a solver that the process does not know."""
    if name not in process.solvers:
        raise ValueError(f"solver {name} does not fit {type(process).__name__}. Use {' or '.join(process.solvers)}")
