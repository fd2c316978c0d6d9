"""Whether the branches of guidance go through the denoiser one after the other: `sampling.cfg_branches`."""

from typing import Literal

import torch

from opensora_cli.distributed.team import Team
from opensora_cli.fitting_tiles import SHARE, free_memory
from opensora_cli.planning.denoised import LatentClips
from opensora_cli.planning.denoising import denoiser_costs
from opensora_cli.planning.precision import Precision
from schemas.denoiser import DenoiserConfig

Branches = Literal["auto", "batched", "in_turn"]


def in_turn(
    asked: Branches, denoiser: DenoiserConfig, clips: LatentClips, dtype: torch.dtype, device: torch.device, team: Team
) -> bool:
    """Whether to evaluate one branch at a time: as asked, or where all `clips` of a step do not fit in what is free.

    `clips` has every sample once for each branch. A CPU takes them together: its results would otherwise depend, in their
    last bits, on what else runs there. All processes of a team get the same answer. The denoiser has to be where it works
    already.
    """
    if asked != "auto":
        return asked == "in_turn"
    fits = device.type == "cpu" or evaluation_fits(denoiser, clips, dtype, free_memory(device))
    return not team.agree([fits])[0]


def evaluation_fits(denoiser: DenoiserConfig, clips: LatentClips, dtype: torch.dtype, free: int) -> bool:
    """Whether an evaluation of so many clips on a GPU fits in `free` bytes, with a margin for the estimate's error."""
    precision = Precision.of("fp32" if dtype == torch.float32 else "bf16", "cuda", autocast=False)
    return denoiser_costs(denoiser, precision).evaluating(clips) <= SHARE * free
