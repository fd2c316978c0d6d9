"""Branches of guidance, together or in turn, by the memory that is free."""

from dataclasses import replace

import pytest
import torch

from opensora_cli.distributed.team import Team
from opensora_cli.planning.denoised import LatentClips
from opensora_cli.sampling.branches import evaluation_fits, in_turn
from schemas.denoiser import MMDiTConfig

GIB = 2**30
LARGE = LatentClips(batch=2, latents=(33, 48, 84), text=512)  # two branches of 129 frames at 768px
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Disagreeing(Team):
    """A team of which another process has no room."""

    def agree(self, flags: list[bool]) -> list[bool]:
        return [False for _ in flags]


def test_more_tokens_take_more_and_fp32_takes_more_than_bf16() -> None:
    def least(clips: LatentClips, dtype: torch.dtype) -> int:
        return next(gib for gib in range(1, 200) if evaluation_fits(MMDiTConfig(), clips, dtype, gib * GIB))

    half = replace(LARGE, batch=1)
    assert least(half, torch.bfloat16) < least(LARGE, torch.bfloat16) < least(LARGE, torch.float32)


@pytest.mark.parametrize(("free", "turns"), [(1, True), (100, False)])
def test_auto_takes_turns_where_a_gpu_has_too_little(monkeypatch: pytest.MonkeyPatch, free: int, turns: bool) -> None:
    monkeypatch.setattr("opensora_cli.sampling.branches.free_memory", lambda _: free * GIB)
    config, dtype = MMDiTConfig(), torch.bfloat16
    assert in_turn("auto", config, LARGE, dtype, CUDA, Team()) is turns
    assert in_turn("auto", config, LARGE, dtype, CUDA, Disagreeing())
    assert not in_turn("auto", config, LARGE, dtype, CPU, Team()), "bits would depend on what else runs"
    assert in_turn("in_turn", config, LARGE, dtype, CUDA, Team())
    assert not in_turn("batched", config, LARGE, dtype, CUDA, Team())
